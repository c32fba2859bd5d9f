"""A worker's process: its apps, what it starts around them, and whether they can work."""
