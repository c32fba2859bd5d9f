"""Backup of all that storage has, and the way back: copied in an order that a kill cannot harm."""
