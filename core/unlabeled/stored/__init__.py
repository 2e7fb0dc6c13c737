"""Embeddings on disk: made in parts, by any number of processes, and joined to one file."""
