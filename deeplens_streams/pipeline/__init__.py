"""What a stage is made of: its loop, what it reports, and what becomes of what failed."""
