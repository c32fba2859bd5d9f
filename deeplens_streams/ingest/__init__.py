"""Taking an image in: whether there is room, how its bytes come, and what makes it durable."""
