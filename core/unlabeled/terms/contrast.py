"""NT-Xent: views of one sample attract, everything else in the global batch repels (SimCLR, arXiv 2002.05709)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, by_rows, full_precision, need_batch, pairs_of, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


@full_precision
def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """−log exp(ẑᵢ·ẑⱼ/τ) / Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ), mean over anchors i and their positives j.

    The similarity matrix is never whole: rows come in chunks that are computed again in the backward pass.

    Args:
        z: [K, M, D] projections of K >= 2 views of M samples, M on every rank; negatives are global.

    Returns:
        [] this rank's share; the mean over ranks is the loss. Equal embeddings give ln(K × M × world − 1).
    """
    z = F.normalize(z.float(), dim=-1)
    K, M, _ = z.shape
    everyone = gather(z, dim=1)  # [K, G, D]
    G = everyone.shape[1]
    everyone = everyone.flatten(0, 1)  # [K × G, D]
    samples = torch.arange(M, device=z.device) + rank() * M
    itself = (torch.arange(K, device=z.device)[:, None] * G + samples).flatten()
    normaliser = partial(_log_normaliser, everyone=everyone, temperature=temperature)
    repel = by_rows(normaliser, len(everyone), CHUNK, z.flatten(0, 1), itself).mean()
    pairs = pairs_of(K)
    attract = torch.stack([(z[one] * z[two]).sum(-1).mean() for one, two in pairs]).mean() / temperature
    return repel - attract


def _log_normaliser(anchors: Tensor, itself: Tensor, everyone: Tensor, temperature: float) -> Tensor:
    """[R] log-sum-exp of each anchor's similarities to all but itself."""
    logits = anchors @ everyone.T / temperature
    return logits.scatter(1, itself[:, None], -torch.inf).logsumexp(1)


class Contrast(Term):
    """Projector (width → hidden → out) and NT-Xent over all student views; `norm` puts a batch norm in the projector."""

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
