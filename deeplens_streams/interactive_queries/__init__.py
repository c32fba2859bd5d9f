"""A table's rows from whichever worker holds them."""
