"""NT-Xent: views of one sample attract, everything else in the global batch repels (SimCLR, arXiv 2002.05709)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.normaliser import mean_repulsion, unit
from unlabeled.terms.base import Term, full_precision, need_batch, spread


@full_precision
def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """−log exp(ẑᵢ·ẑⱼ/τ) / Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ), mean over anchors i and their positives j.

    The similarity matrix is never whole.

    Args:
        z: [K, M, D] projections of K >= 2 views of M samples, M on every rank; negatives are global.

    Returns:
        [] this rank's share; the mean over ranks is the loss. Equal embeddings give ln(K × M × world − 1).
    """
    z = unit(z.float())
    return mean_repulsion(z, gather(z, dim=1), temperature, attract=True)


class Contrast(Term):
    """Projector (width → hidden → out, with a batch norm if `norm`) and NT-Xent over all student views."""

    needs = frozenset({"instances", "views"})
    tracked = ()

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.1,
        hidden: int | None = None,
        out: int = 128,
        norm: bool = True,
    ):
        super().__init__(encoder)
        self.temperature = temperature
        self.projector = head([encoder.width, hidden or encoder.width, out], norm=norm)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("contrast", passes)
        z, _ = self.project(passes)
        return {"loss": nt_xent(torch.stack(z), self.temperature), "std": spread(z[0])}
