"""What formats of pictures say, and what is made of it: strangers' bytes live here."""
