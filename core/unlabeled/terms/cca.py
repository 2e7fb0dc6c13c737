"""Canonical correlation between views: CCA-SSG (arXiv 2106.12484) and Eckart-Young CCA (2310.01012)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import batch_mean, batch_moments, mean_over_ranks
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, full_precision, need_batch, pairs_of, scatter_matrix, spread


@full_precision
def cca_ssg(z1: Tensor, z2: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """−tr(Z₁ᵀZ₂)/N and λ Σ_views ‖I − ZᵀZ/N‖²_F of columns with mean 0 and variance 1 over the global batch.

    The first is half of the paper's ‖Z₁ − Z₂‖²_F/N, less a constant, as in its code.

    Args:
        z1, z2: [M, D] embeddings of two views.
        weight: λ.
    """
    standard = []
    for z in (z1.float(), z2.float()):
        mean, var = batch_moments(z)
        standard.append((z - mean) * (var + 1e-8).rsqrt())
    one, two = standard
    M, D = one.shape
    agree = -mean_over_ranks((one * two).sum() / M)
    identity = torch.eye(D, device=one.device)
    apart = [(identity - mean_over_ranks(scatter_matrix(z) / M)).square().sum() for z in standard]
    return agree, weight * (apart[0] + apart[1])


@full_precision
def ey_cca(z1: Tensor, z2: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """−2 tr A and tr B² with A = Cov(Z₁, Z₂) + Cov(Z₂, Z₁), B = Cov(Z₁) + Cov(Z₂): Eckart-Young for CCA.

    The minimum is −Σ ρ² over the leading D canonical correlations ρ, and needs no constraint on the covariances.

    Args:
        z1, z2: [M, D] embeddings of two views.
        unbiased: tr B² from covariances of two halves of the batch, whose product has no bias; noisier.
    """
    one, two = (z.float() - batch_mean(z.float()) for z in (z1, z2))
    cross = mean_over_ranks((one * two).sum() / len(one))
    if unbiased:
        halves = [_within(one[start::2], two[start::2]) for start in (0, 1)]
    else:
        halves = [_within(one, two)] * 2
    return -4 * cross, (halves[0] * halves[1]).sum()


def _within(one: Tensor, two: Tensor) -> Tensor:
    """B [D, D] of centred rows, over the global batch."""
    return mean_over_ranks((scatter_matrix(one) + scatter_matrix(two)) / len(one))


class _Embeddings(Term):
    """Embeddings of a projector, or of the encoder itself where `layers` is 0."""

    needs = frozenset({"instances", "views"})

    def __init__(self, encoder: Encoder, layers: int, hidden: int | None, out: int | None):
        super().__init__(encoder)
        inner = hidden or 4 * encoder.width
        widths = [encoder.width, *[inner] * (layers - 1), out or inner]
        self.projector = head(widths) if layers else nn.Identity()


class CCASSG(_Embeddings):
    """The paper's graphs compare the encoder's own output, so there is no projector unless `layers` asks for one."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        off_weight: float = 1e-3,
        layers: int = 0,
        hidden: int | None = None,
        out: int | None = None,
    ):
        super().__init__(encoder, layers, hidden, out)
        self.off_weight = off_weight

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("cca_ssg", passes)
        z, _ = self.project(passes)
        parts = [cca_ssg(z[one], z[two], self.off_weight) for one, two in pairs_of(len(z))]
        agree, apart = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        return {
            "loss": agree + apart,
            "invariance": agree.detach(),
            "decorrelation": apart.detach(),
            "std": spread(z[0]),
        }


class EYCCA(_Embeddings):
    """Three-layer projector as Barlow Twins', and the Eckart-Young loss."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        unbiased: bool = False,
        layers: int = 3,
        hidden: int | None = None,
        out: int | None = None,
    ):
        super().__init__(encoder, layers, hidden, out)
        self.unbiased = unbiased

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("ey_cca", passes)
        z, _ = self.project(passes)
        parts = [ey_cca(z[one], z[two], self.unbiased) for one, two in pairs_of(len(z))]
        reward, penalty = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        return {
            "loss": reward + penalty,
            "reward": reward.detach(),
            "penalty": penalty.detach(),
            "std": spread(z[0]),
        }
