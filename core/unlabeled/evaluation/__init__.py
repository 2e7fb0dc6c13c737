"""How good frozen features are, always beside the untrained encoder and the raw data."""
