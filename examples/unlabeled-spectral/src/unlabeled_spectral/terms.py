"""Spectral contrastive loss (arXiv 2106.04156)."""

import torch
import torch.nn.functional as F

from unlabeled.collectives import mean_over_ranks, world
from unlabeled.layers import head
from unlabeled.terms.base import Term, full_precision, need_batch, pairs_of, spread


@full_precision
def spectral(one, two):
    """−2 E[z·z⁺] + E[(z·z⁻)²] of two views [M, D]; z⁻ are the other samples of the global batch.

    The sum over pairs is that over entries of two D × D matrices, so that no rank needs the others' samples.
    """
    same = (one * two).sum(1)  # [M]
    total = len(one) * world()
    first, second = (mean_over_ranks(z.T @ z) / len(z) for z in (one, two))
    apart = (total * (first * second).sum() - same.square().mean()) / (total - 1)
    return apart - 2 * same.mean()


class Spectral(Term):
    """Two-layer projector, vectors of length √radius; every pair of views."""

    needs = frozenset({"instances", "views"})

    def __init__(self, encoder, *, radius: float = 1.0, hidden: int | None = None, out: int = 128):
        super().__init__(encoder)
        self.scale = radius**0.5
        self.projector = head([encoder.width, hidden or 2 * encoder.width, out])

    def forward(self, passes):
        need_batch("spectral", passes)
        z = [self.scale * F.normalize(view, dim=-1) for view in self.project(passes)[0]]
        loss = torch.stack([spectral(z[one], z[two]) for one, two in pairs_of(len(z))]).mean()
        return {"loss": loss, "std": spread(z[0])}
