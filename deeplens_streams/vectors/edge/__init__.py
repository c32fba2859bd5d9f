"""Qdrant Edge: Qdrant's own engine inside this process, a folder a collection."""
