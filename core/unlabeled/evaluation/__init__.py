"""How good a run is by labels, always beside its baselines: the encoder untrained or from scratch, and the raw data."""
