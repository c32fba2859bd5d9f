"""How what a request brings is read: forms, their fields, filters and JSON bodies."""
