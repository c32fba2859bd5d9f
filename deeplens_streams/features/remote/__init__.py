"""The model behind HTTP: extraction services, and which of them is asked next."""
