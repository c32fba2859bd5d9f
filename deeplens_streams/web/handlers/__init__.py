"""One module a resource; none imports another."""
