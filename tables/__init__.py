"""Faust tables, one a file, with the plain functions that say how their values change."""
