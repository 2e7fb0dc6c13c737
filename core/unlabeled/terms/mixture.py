"""Find both parts of a mixture: i-Mix (arXiv 2010.08887) on token embeddings, as e-Mix of DABS (2111.12062)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.normaliser import mean_log_normaliser
from unlabeled.terms.base import Term, full_precision, need_batch, spread


@full_precision
def mixture(mixed: Tensor, clean: Tensor, partner: Tensor, part: Tensor, temperature: float) -> Tensor:
    """−λ log p(own) − (1 − λ) log p(partner), p the softmax of cosines to all clean samples of the global batch.

    Args:
        mixed, clean: [M, D]; row i of both is of sample i.
        partner: [M] int64, rows of the clean ones of all ranks, in rank order.
        part: [M] λ, the share of the own sample.
    """
    mixed = F.normalize(mixed.float(), dim=-1)
    everyone = gather(F.normalize(clean.float(), dim=-1))
    own = torch.arange(len(mixed), device=mixed.device) + rank() * len(mixed)
    rows = mixed / temperature
    attract = part * (rows * everyone[own]).sum(-1) + (1 - part) * (rows * everyone[partner]).sum(-1)
    return mean_log_normaliser(rows, everyone) - attract.mean()


class Mixture(Term):
    """Projector and the loss of `mixture`: the student saw mixed samples, the teacher branch the same ones whole.

    DABS projects by one linear layer; here it is SimCLR's two-layer head.
    """

    needs = frozenset({"instances", "mixed", "teacher"})
    tracked = ("projector",)

    def __init__(self, encoder: Encoder, *, temperature: float = 0.2, hidden: int | None = None, out: int = 128):
        super().__init__(encoder)
        self.temperature = temperature
        self.projector = head([encoder.width, hidden or encoder.width, out])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("mixture", passes)
        z, whole = self.project(passes)
        at, losses = 0, []
        for look, _ in passes.masked():
            hide = look.hidden
            assert hide is not None
            assert hide.partner is not None
            assert hide.part is not None
            mixed, clean = torch.cat(z[at : at + look.views]), torch.cat(whole[at : at + look.views])
            partner = hide.partner if hide.across else hide.partner + rank() * len(mixed)
            losses.append(mixture(mixed, clean, partner, hide.part, self.temperature))
            at += look.views
        return {"loss": torch.stack(losses).mean(), "std": spread(torch.cat(z))}
