"""Supervised contrast: samples of one class attract, where labels are known (SupCon, arXiv 2004.11362)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.normaliser import mean_repulsion
from unlabeled.terms.base import Term, full_precision, need_batch, spread


@full_precision
def sup_con(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """−1/|P(i)| Σ_{p in P(i)} log exp(ẑᵢ·ẑₚ/τ) / Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ), mean over anchors i: the paper's L_out.

    P(i) are the other views of i and all views of samples with its label. With every label different this is NT-Xent.
    The sum over P(i) is a product with the sum of a class's embeddings, so that no matrix of who is alike is needed.

    Args:
        z: [K, M, D] projections of K views of M samples, M on every rank; negatives are global.
        labels: [M] int64; below 0: not known, so that only its own views attract a sample.

    Returns:
        [] this rank's share; the mean over ranks is the loss.
    """
    z = F.normalize(z.float(), dim=-1)
    K, M, _ = z.shape
    everyone = gather(z, dim=1)  # [K, G, D]
    samples = torch.arange(M, device=z.device) + rank() * M
    labels = torch.where(labels < 0, -1 - samples, labels)  # a class of its own
    _, member, size = gather(labels).unique(return_inverse=True, return_counts=True)
    sums = z.new_zeros(len(size), z.shape[2]).index_add(0, member, everyone.sum(0))
    mine = member[samples]
    attract: Tensor = (z * (sums[mine] - z)).sum(-1) / (K * size[mine] - 1) / temperature  # [K, M]
    return mean_repulsion(z, everyone, temperature) - attract.mean()


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
