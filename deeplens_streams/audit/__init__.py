"""Comparing what there is with what there should be, and mending what differs."""
