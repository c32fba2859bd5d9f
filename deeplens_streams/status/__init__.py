"""What the status topic tells: rows as they change, what they wait for, how long they take."""
