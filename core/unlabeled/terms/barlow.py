"""Barlow Twins: the cross-correlation of two views' embeddings becomes the identity (arXiv 2103.03230).

Mixed Barlow Twins (arXiv 2312.02151) adds that the embedding of a mixture is the mixture of embeddings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Branch, Passes
from unlabeled.collectives import batch_moments, gather, mean_over_ranks, world
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.masking import per_sample
from unlabeled.terms.base import Term, full_precision, need_batch, pairs_of, spread


def standardise(z: Tensor) -> Tensor:
    """Columns of [M, ...] to mean 0 and variance 1 over the global batch; constant columns become 0."""
    if world() == 1 and len(z) > 1:
        return F.batch_norm(z.flatten(1), None, None, training=True).view_as(z)  # the same, in one pass
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
    everything = torch.linalg.vector_norm(C).square()  # without another matrix, which the squares would be
    return (1 - diagonal).square().sum(), off_weight * (everything - diagonal.square().sum())


@full_precision
def mixture_gap(mixed: Tensor, whole: Tensor, share: Tensor, partner: Tensor, across: bool = False) -> Tensor:
    """½ Σᵥ ‖(M − λZ − (1 − λ)Z[partner])ᵀ Zᵥ/N‖²_F over clean views v, mean over mixed views; all standardised.

    In the paper's words: the cross-correlation of mixed with clean embeddings less the mixture of the clean ones' own.
    There λ is one a batch and samples of two views are mixed; here λ is one a sample, which contains that. The ½ is
    that of the authors' ImageNet code.

    Args:
        mixed, whole: [K, M, D] projections of mixed and of clean views.
        share: λ [K × M].
        partner: [K × M] int64, the row of the flat [K × M] that is mixed in.
        across: whether partners count over all ranks.
    """
    mixed, whole = (standardise(z.float().transpose(0, 1)).transpose(0, 1) for z in (mixed, whole))
    K, M, D = whole.shape
    own = whole.flatten(0, 1)
    others = (gather(own) if across else own)[partner]
    gap = mixed - torch.lerp(others, own, share[:, None]).view(K, M, D)
    C = mean_over_ranks(torch.einsum("kmi,vmj->kvij", gap, whole) / M)
    return C.square().sum() / (2 * K)


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
        return self.twins(z)

    def twins(self, z: list[Tensor]) -> dict[str, Tensor]:
        """The loss of every pair of views [M, D], and its parts."""
        parts = [redundancy(z[one], z[two], self.off_weight) for one, two in pairs_of(len(z))]
        on, off = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        return {"loss": on + off, "invariance": on.detach(), "redundancy": off.detach(), "std": spread(z[0])}


class MixedBarlow(Barlow):
    """Barlow Twins of the clean views + λ_reg λ × the gap between embeddings of mixtures and mixtures of embeddings."""

    needs = frozenset({"instances", "views", "teacher", "mixed"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        off_weight: float = 5e-3,
        mixed_weight: float = 1.0,
        hidden: int | None = None,
        out: int | None = None,
    ):
        super().__init__(encoder, off_weight=off_weight, hidden=hidden, out=out)
        self.mixed_weight = mixed_weight

    def attach(self, branch: Branch) -> None:
        if branch != "shared":
            raise UserError(f"term 'mixed_barlow' learns from clean views too: the teacher is 'shared', not {branch!r}")

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("mixed_barlow", passes)
        mixed, whole = self.project(passes)
        out = self.twins(whole)
        gap = self.mixed_weight * self.off_weight * _gap(passes, mixed, whole)
        return {**out, "loss": out["loss"] + gap, "mixture": gap.detach()}


def _gap(passes: Passes, mixed: list[Tensor], whole: list[Tensor]) -> Tensor:
    """The mean of the gaps of each kind of view; samples are mixed with others of their kind."""
    gaps: list[Tensor] = []
    at = 0
    for kind, look in passes.teacher.items():
        hidden = passes.student[kind][0].hidden
        assert hidden is not None
        assert hidden.share is not None
        assert hidden.partner is not None
        owner, _ = per_sample(look.tokens)
        share = hidden.share.new_zeros(len(hidden.partner)).scatter(0, owner.flatten(), hidden.share.flatten())
        views = slice(at, at + look.views)
        clean = torch.stack(whole[views])
        gaps.append(mixture_gap(torch.stack(mixed[views]), clean, share, hidden.partner, hidden.across))
        at += look.views
    return torch.stack(gaps).mean()
