"""Clips of any length as a batch: padded to the longest, with each one's length beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.utils.data import default_collate

from unlabeled.contract import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """{"wave": [S], "length": []} of each clip -> {"wave": [B, S], "length": [B]}; zeros after a clip's end."""
    count = [sample["wave"].shape[0] for sample in samples]
    longest = max(count)
    waves = [F.pad(sample["wave"], (0, longest - own)) for sample, own in zip(samples, count, strict=True)]
    return {"wave": default_collate(waves), "length": torch.stack([sample["length"] for sample in samples])}
