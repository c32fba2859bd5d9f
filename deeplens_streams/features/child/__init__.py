"""The model in a process of its own: both sides, and what they say to each other."""
