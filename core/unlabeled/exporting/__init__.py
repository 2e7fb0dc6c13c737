"""A trained encoder in formats that others read."""
