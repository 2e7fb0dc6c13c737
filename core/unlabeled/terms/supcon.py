"""Supervised contrast: samples of one class attract, where labels are known (SupCon, arXiv 2004.11362)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, by_rows, full_precision, need_batch, spread

CHUNK = 1 << 23  # similarities held at once, with a mask beside them


@full_precision
def sup_con(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """−1/|P(i)| Σ_{p in P(i)} log exp(ẑᵢ·ẑₚ/τ) / Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ), mean over anchors i: the paper's L_out.

    P(i) are the other views of i and all views of samples with its label. With every label different this is NT-Xent.

    Args:
        z: [K, M, D] projections of K views of M samples, M on every rank; negatives are global.
        labels: [M] int64; below 0: not known, so that only its own views attract a sample.
    """
    z = F.normalize(z.float(), dim=-1)
    K, M, _ = z.shape
    everyone = gather(z, dim=1)
    G = everyone.shape[1]
    samples = torch.arange(M, device=z.device) + rank() * M
    labels = torch.where(labels < 0, -1 - samples, labels)
    known = gather(labels)
    itself = (torch.arange(K, device=z.device)[:, None] * G + samples).flatten()
    part = partial(_anchors, everyone=everyone.flatten(0, 1), known=known.repeat(K), temperature=temperature)
    return by_rows(part, K * G, CHUNK, z.flatten(0, 1), labels.repeat(K), itself).mean()


def _anchors(
    anchors: Tensor, labels: Tensor, itself: Tensor, everyone: Tensor, known: Tensor, temperature: float
) -> Tensor:
    """[R] the loss of each anchor."""
    logits = anchors @ everyone.T / temperature
    positive = (labels[:, None] == known).scatter(1, itself[:, None], False)
    repel = logits.scatter(1, itself[:, None], -torch.inf).logsumexp(1)
    return repel - torch.where(positive, logits, 0).sum(1) / positive.sum(1)


class SupCon(Term):
    """Projector (width → hidden → out) and the supervised contrastive loss over all student views."""

    needs = frozenset({"instances", "views", "labels"})

    def __init__(self, encoder: Encoder, *, temperature: float = 0.1, hidden: int | None = None, out: int = 128):
        super().__init__(encoder)
        self.temperature = temperature
        self.projector = head([encoder.width, hidden or encoder.width, out])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("supcon", passes)
        z, _ = self.project(passes)
        assert passes.labels is not None, "a method that needs labels is refused without them"
        return {"loss": sup_con(torch.stack(z), passes.labels, self.temperature), "std": spread(z[0])}
