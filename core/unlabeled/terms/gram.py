"""Gram anchoring: similarities between tokens stay as they were earlier in the run (DINOv3, arXiv 2508.10104)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Look, Passes, Teacher
from unlabeled.collectives import mean_over_ranks
from unlabeled.contract import Encoder
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term, full_precision


@full_precision
def gram_distance(x: Tensor, anchor: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (x̂ᵢ·x̂ⱼ − ĝᵢ·ĝⱼ)² over the pairs of tokens of each sample, and their number.

    Args:
        x, anchor: [B, N, D].
        pairs: [B, N, N] bool.
    """
    x, anchor = F.normalize(x.float(), dim=-1), F.normalize(anchor.float(), dim=-1)
    error = (x @ x.mT - anchor @ anchor.mT).square()
    return torch.where(pairs, error, 0).sum(), pairs.sum()


class Gram(Term):
    """The student's Gram matrix of tokens against that of a snapshot of itself, taken earlier in the run.

    The paper's snapshot is of the EMA teacher; taken at a late step the two are near each other. Before there is one
    the loss is zero.

    Args:
        after: share of the run at which the snapshot is taken.
        refresh: share of the run after which it is taken again; 0: never.
    """

    needs = frozenset({"tokens"})
    taken: Tensor  # [] bool

    def __init__(self, encoder: Encoder, *, after: float = 0.5, refresh: float = 0.0):
        super().__init__(encoder)
        self.after, self.refresh = after, refresh
        self.anchor = Teacher(encoder)
        self._encoder: tuple[nn.Module, ...] = (encoder,)  # a tuple is not registered again
        self.register_buffer("taken", torch.zeros((), dtype=torch.bool))

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        looks = [look for kind, every in passes.student.items() if kind != "local" for look in every]
        if not bool(self.taken):
            return {"loss": torch.stack([look.latent.float().sum() * 0 for look in looks]).mean()}
        parts = [gram_distance(look.latent, self._anchor(look), _pairs(look)) for look in looks]
        error, count = (torch.stack(part).sum() for part in zip(*parts, strict=True))
        return {"loss": error / mean_over_ranks(count.float()).clamp(min=1)}

    def _anchor(self, look: Look) -> Tensor:
        out: Tensor = self.anchor(look.tokens).tokens
        return out

    def after_step(self, clock: Clock) -> None:
        done = clock.step + 1 - round(self.after * clock.steps)
        every = round(self.refresh * clock.steps)
        if done == 0 or (done > 0 and every and done % every == 0):
            self.anchor.module.load_state_dict(self._encoder[0].state_dict())
            self.taken.fill_(True)


def _pairs(look: Look) -> Tensor:
    """[B, N, N]: tokens that the student saw, of one sample."""
    seen = look.tokens.valid if look.in_place else look.seen
    pairs = seen[:, :, None] & seen[:, None]
    owner = look.tokens.owner
    return pairs if owner is None else pairs & (owner[:, :, None] == owner[:, None])
