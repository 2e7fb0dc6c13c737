"""One self-contained page about runs: what was trained, its curves and health, a map of what it learnt."""
