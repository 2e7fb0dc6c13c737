"""Barlow Twins: the cross-correlation of two views' embeddings becomes the identity (arXiv 2103.03230)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import batch_moments, mean_over_ranks
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, full_precision, need_batch, pairs_of, spread


def standardise(z: Tensor) -> Tensor:
    """Columns of [M, D] to mean 0 and variance 1 over the global batch; constant columns become 0."""
    mean, var = batch_moments(z)
    return (z - mean) * (var + 1e-5).rsqrt()


@full_precision
def redundancy(z1: Tensor, z2: Tensor, off_weight: float) -> tuple[Tensor, Tensor]:
    """Σᵢ(1 − Cᵢᵢ)² and λ Σ_{i≠j} C²ᵢⱼ of C = Z₁ᵀZ₂/N, standardised and averaged over the global batch.

    Args:
        z1, z2: [M, D] projections of two views.
        off_weight: λ.
    """
    z1, z2 = standardise(z1.float()), standardise(z2.float())
    C = mean_over_ranks(z1.T @ z2 / len(z1))  # with gradient: each rank holds M of the rows
    diagonal = C.diagonal()
    return (1 - diagonal).square().sum(), off_weight * (C.square().sum() - diagonal.square().sum())


class Barlow(Term):
    """Three-layer projector (8192 wide at width 2048) and the redundancy reduction of each pair of views."""

    needs = frozenset({"instances", "views"})

    def __init__(
        self, encoder: Encoder, *, off_weight: float = 5e-3, hidden: int | None = None, out: int | None = None
    ):
        super().__init__(encoder)
        self.off_weight = off_weight
        inner = hidden or 4 * encoder.width
        self.projector = head([encoder.width, inner, inner, out or inner])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("barlow", passes)
        z, _ = self.project(passes)
        parts = [redundancy(z[one], z[two], self.off_weight) for one, two in pairs_of(len(z))]
        on, off = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        return {"loss": on + off, "invariance": on.detach(), "redundancy": off.detach(), "std": spread(z[0])}
