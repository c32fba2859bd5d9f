"""Listings of what is stored, in order and page by page."""
