"""Sinkhorn-Knopp: assignments that use every prototype equally, over the global batch (arXiv 1306.0895, 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.collectives import gather


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """[M, K] probabilities per row, such that each prototype has about the same share of all rows of all ranks.

    In logarithms, so that no temperature overflows. Ranks may hold different numbers of rows, none included.

    Args:
        logits: [M, K].
        temperature: ε of SwAV, the teacher's temperature of DINOv2.
        iterations: of scaling prototypes, then rows.
    """
    score = logits.float() / temperature
    for _ in range(iterations):
        score = score - gather(score.logsumexp(0)[None]).logsumexp(0)
        score = score - score.logsumexp(1, keepdim=True)
    return score.exp()
