"""Clips of any length as a batch: padded to the longest, with each one's length beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unlabeled.contract import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """{"wave": [S], "length": []} of each clip -> {"wave": [B, S], "length": [B]}; zeros after a clip's end."""
    longest = max(len(sample["wave"]) for sample in samples)
    wave = torch.zeros(len(samples), longest)
    for row, sample in enumerate(samples):
        wave[row, : len(sample["wave"])] = sample["wave"]
    return {"wave": wave, "length": torch.stack([sample["length"] for sample in samples])}
