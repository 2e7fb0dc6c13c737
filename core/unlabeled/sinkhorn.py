"""Sinkhorn-Knopp: assignments that use every prototype equally, over the global batch (arXiv 1306.0895, 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.collectives import gather

LEAST = 1e-30  # share of a prototype that nobody comes near: its scale stays a number


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """[M, K] probabilities per row, such that each prototype has about the same share of all rows of all ranks.

    Each row's largest entry is 1 before scaling, so that no temperature overflows; only two vectors of scales move.
    Ranks may hold different numbers of rows, none included.

    Args:
        logits: [M, K].
        temperature: ε of SwAV, the teacher's temperature of DINOv2.
        iterations: of scaling prototypes, then rows; 1 or more.
    """
    with torch.autocast(logits.device.type, enabled=False):
        score = logits.float() / temperature
        top = score.amax(1)
        shares = score.sub_(top[:, None]).exp_()
        row = (top - _largest(top)).exp()
        for _ in range(iterations):
            column = gather((row @ shares)[None]).sum(0).clamp(min=LEAST).reciprocal()
            column = column / column.mean()  # or the scales would run away
            row = (shares @ column).reciprocal()
        return shares.mul_(row[:, None]).mul_(column)


def _largest(top: Tensor) -> Tensor:
    """[] of all ranks; a rank without rows has none."""
    return gather(torch.cat([top, top.new_full((1,), -torch.inf)]).amax()[None]).amax()
