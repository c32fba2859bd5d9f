"""What is damaged in a data folder whose system is stopped; nothing in it is changed."""
