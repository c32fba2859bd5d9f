"""Engines in memory, for tests of this project and of others."""
