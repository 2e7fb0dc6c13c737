"""From a reader to the batches of a step."""
