"""The registry of tenants: what storage keeps of it, and how the two are brought together."""
