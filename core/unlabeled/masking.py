"""Mask samplers: which tokens a student may not see, and which it must predict.

They know places only by `tokens.coords`, so one block mask serves an image, a volume, a spectrogram and a
table. Every count is exact per sample, invalid tokens are never chosen, and chance comes from the sample's own
draws. In flat storage (`tokens.owner`) counts are per owner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.randomness import Draws

_BELOW_ONE = math.nextafter(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Hidden:
    """One mask of a batch."""

    hidden: Tensor  # [B, N] bool: what the student may not see; always valid places
    targets: tuple[Tensor, ...]  # each [B, N] bool, inside hidden: predicted one after another


class Mask(Protocol):
    """Says which tokens are hidden, and which of these are to be predicted."""

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden: ...


def per_sample(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The sample of each token [B, N] and the number of valid tokens [samples] of each sample."""
    B, N = tokens.valid.shape
    if tokens.owner is None:
        owner = torch.arange(B, device=tokens.valid.device)[:, None].expand(B, N)
        return owner, tokens.valid.sum(1)
    samples = int(tokens.owner.max()) + 1
    count = torch.zeros(samples, dtype=torch.int64, device=tokens.valid.device)
    return tokens.owner, count.index_add_(0, tokens.owner.flatten(), tokens.valid.flatten().long())


def lowest(score: Tensor, eligible: Tensor, owner: Tensor | None, count: Tensor) -> Tensor:
    """[B, N] bool: the `count` [samples] eligible tokens with the lowest score [B, N] of each sample."""
    score = score.masked_fill(~eligible, math.inf)
    if owner is None:
        return (score.argsort(dim=1, stable=True).argsort(dim=1) < count[:, None]) & eligible
    by_score = score.flatten().argsort(stable=True)
    order = by_score[owner.flatten()[by_score].argsort(stable=True)]  # by sample, then by score
    sizes = torch.bincount(owner.flatten(), minlength=len(count))
    first = (sizes.cumsum(0) - sizes)[owner.flatten()[order]]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first
    return (place < count[owner.flatten()]).view_as(score) & eligible


def _draws(tokens: Tokens, draws: Draws) -> Draws:
    return draws if len(draws) == len(tokens.valid) else draws.folded()


def _check_share(name: str, value: float, most: float = _BELOW_ONE) -> None:
    if not 0 < value <= most:
        raise UserError(f"{name} is a share of the tokens: between 0 and 1, not {value}")


def _check_aspect(value: float) -> None:
    if value < 1:
        raise UserError(f"aspect is how much longer than wide a block may be: 1 or more, not {value}")


class RandomMask:
    """Hides round(ratio × valid) tokens of each sample, uniformly; at least one stays visible (arXiv 2111.06377)."""

    def __init__(self, ratio: float = 0.75):
        _check_share("ratio", ratio)
        self.ratio = ratio

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        score = _draws(tokens, draws).uniform(tokens.valid.shape[1])
        hidden = lowest(score, tokens.valid, tokens.owner, _count(tokens, self.ratio))
        return Hidden(hidden, (hidden,))


class BlockMask:
    """Hides the round(ratio × valid) tokens nearest to a random valid token: a box, in any number of dimensions."""

    def __init__(self, ratio: float = 0.5, aspect: float = 1.5):
        _check_share("ratio", ratio)
        _check_aspect(aspect)
        self.ratio, self.aspect = ratio, aspect

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        far = box_distance(tokens, _draws(tokens, draws), self.aspect)
        hidden = lowest(far, tokens.valid, tokens.owner, _count(tokens, self.ratio))
        return Hidden(hidden, (hidden,))


class ContextTargets:
    """I-JEPA's masks (arXiv 2301.08243): a context, and target sets disjoint from it, predicted one by one.

    The targets' size is a share of each sample drawn from `scale`, their sides differ by up to `aspect`.
    The context is a block of a share from `context`, less the targets; at least one token stays in it.
    `shape="scattered"` takes random tokens instead of blocks, where nearness means nothing (the columns of a
    table, T-JEPA, arXiv 2410.05016).
    """

    def __init__(
        self,
        targets: int = 4,
        scale: tuple[float, float] = (0.15, 0.2),
        context: tuple[float, float] = (0.85, 1.0),
        aspect: float = 1.5,
        shape: str = "block",
    ):
        if shape not in ("block", "scattered"):
            raise UserError(f"context_targets has no shape {shape!r}; there are: block, scattered")
        if targets < 1:
            raise UserError(f"context_targets needs at least one target, not {targets}")
        for name, share, most in (("scale", scale, _BELOW_ONE), ("context", context, 1.0)):
            _check_share(name, share[0], most)
            _check_share(name, share[1], most)
        _check_aspect(aspect)
        self.targets, self.scale, self.context, self.aspect = targets, scale, context, aspect
        self.scattered = shape == "scattered"

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        draws = _draws(tokens, draws)
        _, valid = per_sample(tokens)
        targets = tuple(self._some(tokens, draws, valid, self.scale, least=1) for _ in range(self.targets))
        union = torch.stack(targets).any(0)
        context = self._some(tokens, draws, valid, self.context, least=1) & ~union
        # A sample whose targets cover its whole context keeps one token to look from, taken from its targets.
        owner, _ = per_sample(tokens)
        has = torch.zeros(len(valid), dtype=torch.int64, device=valid.device)
        has.index_add_(0, owner.flatten(), context.flatten().long())
        score = draws.uniform(tokens.valid.shape[1]) - (~union).float()  # a token outside the targets, if there is one
        rescue = lowest(score, tokens.valid, tokens.owner, (has == 0).long())
        context = context | rescue
        return Hidden(tokens.valid & ~context, tuple(target & ~context for target in targets))

    def _some(self, tokens: Tokens, draws: Draws, valid: Tensor, share: tuple[float, float], least: int) -> Tensor:
        N = tokens.valid.shape[1]
        score = draws.uniform(N) if self.scattered else box_distance(tokens, draws, self.aspect)
        part = draws.uniform(1, low=share[0], high=share[1])[:, 0]
        part = part if len(part) == len(valid) else part.expand(len(valid))
        count = torch.minimum((part * valid).round().long().clamp(min=least), valid)
        return lowest(score, tokens.valid, tokens.owner, count)


def box_distance(tokens: Tokens, draws: Draws, aspect: float) -> Tensor:
    """[B, N] Chebyshev distance of tokens to a random valid token of their sample, sides stretched up to aspect."""
    N, P = tokens.coords.shape[1:]
    owner, valid = per_sample(tokens)
    seed = lowest(draws.uniform(N), tokens.valid, tokens.owner, torch.ones_like(valid))
    centre = torch.zeros(len(valid), P, dtype=tokens.coords.dtype, device=tokens.coords.device)
    centre.index_add_(0, owner[seed], tokens.coords[seed])
    stretch = (draws.uniform(P, low=-1.0, high=1.0) * math.log(aspect) / 2).exp()  # [B, P]
    if P == 1:
        stretch = torch.ones_like(stretch)
    far = ((tokens.coords - centre[owner]).abs() * stretch[:, None]).amax(-1)
    return far + 1e-6 * draws.uniform(N)  # ties, on a grid the rule, fall at random


def _count(tokens: Tokens, ratio: float) -> Tensor:
    """How many to hide: at least one and never all, wherever a sample has two tokens."""
    _, valid = per_sample(tokens)
    count = (ratio * valid).round().long().clamp(min=1)
    return torch.minimum(count, (valid - 1).clamp(min=0))
