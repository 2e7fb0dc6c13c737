"""Sinkhorn-Knopp: assignments that use every prototype equally, over the global batch (arXiv 1306.0895, 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.collectives import gather


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """[M, K] probabilities per row, such that each prototype has about the same share of all rows of all ranks.

    The first round is in logarithms, so that no temperature overflows; then rows sum to 1 and no prototype has less
    than 1/K in all, and scales alone need to move. Ranks may hold different numbers of rows, none included.

    Args:
        logits: [M, K].
        temperature: ε of SwAV, the teacher's temperature of DINOv2.
        iterations: of scaling prototypes, then rows; 1 or more.
    """
    with torch.autocast(logits.device.type, enabled=False):
        score = logits.float() / temperature
        score -= gather(score.logsumexp(0)[None]).logsumexp(0)
        shares = score.softmax(1)
        row, column = score.new_ones(score.shape[0]), score.new_ones(score.shape[1])
        for _ in range(iterations - 1):
            column = gather((row @ shares)[None]).sum(0).reciprocal()
            column = column / column.mean()  # or the scales would run away
            row = (shares @ column).reciprocal()
        return shares.mul_(row[:, None]).mul_(column)
