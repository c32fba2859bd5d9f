"""What there is at the broker, and what is to be: topics, partitions, offsets."""
