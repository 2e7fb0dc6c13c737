"""Clips of any length as a batch: padded to the longest, with each one's length beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unlabeled.contract import Batch, Sample
from unlabeled.data.collate import padded


def collate(samples: Sequence[Sample]) -> Batch:
    """{"wave": [S], "length": []} of each clip -> {"wave": [B, S], "length": [B]}; zeros after a clip's end."""
    length = torch.stack([sample["length"] for sample in samples])
    return {"wave": padded([sample["wave"] for sample in samples]), "length": length}
