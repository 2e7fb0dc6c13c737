"""Mask samplers: which tokens a student may not see, and which it must predict.

They know places only by `tokens.coords`, so one block mask serves an image, a volume, a spectrogram and a
table. Every count is exact per sample, invalid tokens are never chosen, and chance comes from the sample's own
draws. In flat storage (`tokens.owner`) counts are per owner, and a sample gets the mask that it gets padded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from unlabeled.collectives import gather, gather_uneven, rank, world
from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.randomness import Draws

__all__ = ["BlockMask", "Hidden", "Mask", "box_distance", "check_share", "lowest", "per_sample", "rows_of", "scores"]

_BELOW_ONE = math.nextafter(1.0, 0.0)
Share = float | tuple[float, float]
"""A share of the tokens, or the bounds between which each sample draws its own."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """One mask of a batch: what is not shown, what is shown instead, what is asked for."""

    hidden: Tensor  # [B, N] bool: what the student may not see; always valid places
    targets: tuple[Tensor, ...]  # each [B, N] bool: predicted one after another
    source: Tensor | None = None  # [B, N] int64, see Alteration: whose embedding the student sees at a place
    share: Tensor | None = None  # [B, N] in [0, 1]: how much of the own embedding stays beside the source's
    across: bool = False  # `source` and `partner` count over all ranks
    partner: Tensor | None = None  # [samples] int64: the row mixed into this one
    part: Tensor | None = None  # [samples] in [0, 1]: how much of the own sample is left in the mixture
    values: Tensor | None = None  # [B, N, V]: content that the student sees in place of the tokens' own


class Mask(Protocol):
    """Says which tokens are hidden or changed, and which are to be predicted.

    `gives` says what terms may build on: "hidden" places to predict, "moved" content to detect, "mixed" samples,
    "fused" shares of another sample's content.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden: ...


# ---- chance, per sample and per token


def per_sample(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The sample of each token [B, N] and the number of valid tokens [samples] of each sample."""
    B, N = tokens.valid.shape
    if tokens.owner is None:
        owner = torch.arange(B, device=tokens.valid.device)[:, None].expand(B, N)
        return owner, tokens.valid.sum(1)
    samples = int(tokens.owner.max()) + 1
    count = torch.zeros(samples, dtype=torch.int64, device=tokens.valid.device)
    return tokens.owner, count.index_add_(0, tokens.owner.flatten(), tokens.valid.flatten().long())


def rows_of(tokens: Tokens, draws: Draws) -> Draws:
    """A row of chance for each sample: its own key, or what several instances' keys make together."""
    samples = len(per_sample(tokens)[1])
    return draws if len(draws) == samples else draws.folded(samples)


def scores(tokens: Tokens, rows: Draws) -> Tensor:
    """[B, N] uniform in [0, 1), one per token, from its sample's row of chance."""
    if tokens.owner is None:
        return rows.uniform(tokens.valid.shape[1])
    return rows.uniform_at(tokens.owner, places(tokens.owner))


def by_sample(owner: Tensor, score: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Numbers of all tokens, sample by sample, as they lie or by rising score [B, N]; and where each sample begins."""
    whose = owner.flatten()
    order = torch.arange(len(whose), device=owner.device) if score is None else score.flatten().argsort(stable=True)
    sizes = torch.bincount(whose)
    return order[whose[order].argsort(stable=True)], sizes.cumsum(0) - sizes


def places(owner: Tensor, score: Tensor | None = None) -> Tensor:
    """[B, N]: which of its sample's tokens each one is, as they lie or by rising score [B, N]."""
    order, first = by_sample(owner, score)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return place.view_as(owner) - first[owner]


def lowest(score: Tensor, eligible: Tensor, owner: Tensor | None, count: Tensor) -> Tensor:
    """[B, N] bool: the `count` [samples] eligible tokens with the lowest score [B, N] of each sample."""
    score = score.masked_fill(~eligible, math.inf)
    if owner is not None:
        return (places(owner, score) < count[owner]) & eligible
    order = score.argsort(dim=1, stable=True)
    early = torch.arange(score.shape[1], device=score.device) < count[:, None]
    return torch.zeros_like(eligible).scatter(1, order, early) & eligible


def check_share(name: str, value: Share, most: float = _BELOW_ONE) -> tuple[float, float]:
    """Bounds of a share of the tokens.

    Raises:
        UserError: one is not above 0 and at most `most`, or they are in the wrong order.
    """
    low, high = value if isinstance(value, tuple | list) else (value, value)  # YAML has lists
    for bound in (low, high):
        if not 0 < bound <= most:
            raise UserError(f"{name} is a share of the tokens: between 0 and 1, not {bound}")
    if low > high:
        raise UserError(f"{name} goes from the smaller to the larger share, not from {low} to {high}")
    return low, high


def _check_aspect(value: float) -> None:
    if value < 1:
        raise UserError(f"aspect is how much longer than wide a block may be: 1 or more, not {value}")


# ---- masks


class _Chosen:
    """What masks that choose a share of each sample's tokens have in common: how many, and what becomes of them.

    Args:
        ratio: share of the valid tokens, or its bounds.
        samples: share of the samples that are masked at all (iBOT hides from half of them).
        swap: share of the chosen tokens that show another token's content instead of nothing (GraphMAE, BERT).
        keep: share of the chosen tokens that are shown as they are (BERT); all of them are predicted.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})
    together: ClassVar[bool] = False  # all that is swapped in a sample is of one other, where storage is padded

    def __init__(self, ratio: Share, samples: float, swap: float, keep: float):
        self.ratio = check_share("ratio", ratio)
        if not 0 < samples <= 1:
            raise UserError(f"samples is the share of samples that are masked: above 0, up to 1, not {samples}")
        if min(swap, keep) < 0 or swap + keep > 1:
            raise UserError(f"swap {swap} and keep {keep} are shares of the hidden tokens: from 0, together up to 1")
        self.samples, self.swap, self.keep = samples, swap, keep

    @property
    def alters(self) -> bool:
        """Whether embeddings are changed at the mixing point."""
        return self.swap > 0

    def count(self, tokens: Tokens, rows: Draws) -> Tensor:
        """[samples] how many to choose: at least one and never all, wherever a sample has two tokens."""
        _, valid = per_sample(tokens)
        low, high = self.ratio
        ratio = rows.fork("ratio").uniform(1, low=low, high=high)[:, 0] if high > low else low
        count = (ratio * valid).round().long().clamp(min=1)
        count = torch.minimum(count, (valid - 1).clamp(min=0))
        return torch.where(rows.fork("samples").chance(self.samples, 1)[:, 0], count, 0) if self.samples < 1 else count

    def hide(self, chosen: Tensor, tokens: Tokens, rows: Draws) -> Hidden:
        """The chosen tokens hidden, but for those swapped and kept."""
        if not self.swap and not self.keep:
            return Hidden(chosen, (chosen,))
        owner, valid = per_sample(tokens)
        sizes = torch.zeros_like(valid).index_add_(0, owner.flatten(), chosen.flatten().long())
        fate = scores(tokens, rows.fork("fate"))
        swapped = lowest(fate, chosen, tokens.owner, (self.swap * sizes).round().long())
        kept = lowest(fate, chosen & ~swapped, tokens.owner, (self.keep * sizes).round().long())
        source, across = self._swap(tokens, rows.fork("swap"), swapped) if self.swap else (None, False)
        return Hidden(chosen & ~swapped & ~kept, (chosen,), source, across=across)

    def _swap(self, tokens: Tokens, rows: Draws, swapped: Tensor) -> tuple[Tensor, bool]:
        return strangers(tokens, rows, swapped, one_other(tokens, rows) if self.together else None)


class RandomMask(_Chosen):
    """Hides round(ratio × valid) tokens of each sample, uniformly; at least one stays visible (arXiv 2111.06377)."""

    def __init__(self, ratio: Share = 0.75, *, samples: float = 1.0, swap: float = 0.0, keep: float = 0.0):
        super().__init__(ratio, samples, swap, keep)

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        score = scores(tokens, rows)
        return self.hide(lowest(score, tokens.valid, tokens.owner, self.count(tokens, rows)), tokens, rows)


class BlockMask(_Chosen):
    """Hides the round(ratio × valid) tokens nearest to random valid tokens: boxes, in any number of dimensions.

    With `size`, a share of the tokens, boxes of that size are laid one by one, overlapping as they fall, until the
    count is reached (span and block masks of speech and images; GMML's groups); else there is one box.
    `inverse` keeps the boxes and hides the rest (data2vec 2.0, arXiv 2212.07525).
    """

    together = True

    def __init__(
        self,
        ratio: Share = 0.5,
        aspect: float = 1.5,
        *,
        size: float | None = None,
        inverse: bool = False,
        samples: float = 1.0,
        swap: float = 0.0,
        keep: float = 0.0,
    ):
        super().__init__(ratio, samples, swap, keep)
        _check_aspect(aspect)
        if size is not None:
            check_share("size", size)
        self.aspect, self.size, self.inverse = aspect, size, inverse

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        count = self.count(tokens, rows)
        _, valid = per_sample(tokens)
        laid = torch.where(count > 0, valid - count, 0) if self.inverse else count
        box = self._boxes(tokens, rows, laid)
        masked = count[per_sample(tokens)[0]] > 0
        return self.hide(tokens.valid & masked & ~box if self.inverse else box, tokens, rows)

    def _boxes(self, tokens: Tokens, rows: Draws, count: Tensor) -> Tensor:
        """[B, N] bool: boxes that cover `count` [samples] tokens of each sample."""
        if self.size is None:
            return lowest(box_distance(tokens, rows, self.aspect)[0], tokens.valid, tokens.owner, count)
        share = 1 - self.ratio[0] if self.inverse else self.ratio[1]
        boxes = math.ceil(3 * share / self.size)  # thrice what is needed, as they overlap
        far = box_distance(tokens, rows, self.aspect, boxes)
        _, valid = per_sample(tokens)
        each = (self.size * valid).round().long().clamp(min=1)
        inside = tokens.valid & (far <= of_tokens(nearest(far, tokens, each), tokens))
        turn = torch.arange(boxes, device=far.device)[:, None, None] + far / (1 + far)
        never = boxes + scores(tokens, rows)  # what no box reaches comes last, at random
        order = torch.where(inside, turn, never).amin(0)  # box by box, each from its middle
        return lowest(order, tokens.valid, tokens.owner, count)


class ContextTargets:
    """I-JEPA's masks (arXiv 2301.08243): a context, and target sets disjoint from it, predicted one by one.

    The targets' size is a share of each sample drawn from `scale`, their sides differ by up to `aspect`.
    The context is a block of a share from `context`, less the targets; at least one token stays in it.
    `shape="scattered"` takes random tokens instead of blocks, where nearness means nothing (the columns of a
    table, T-JEPA, arXiv 2410.05016): first the context, then targets from the rest, as there are too few tokens to
    lose any of the context.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __init__(
        self,
        targets: int = 4,
        scale: Share = (0.15, 0.2),
        context: Share = (0.85, 1.0),
        aspect: float = 1.5,
        shape: str = "block",
    ):
        if shape not in ("block", "scattered"):
            raise UserError(f"context_targets has no shape {shape!r}; there are: block, scattered")
        if targets < 1:
            raise UserError(f"context_targets needs at least one target, not {targets}")
        self.scale, self.context = check_share("scale", scale), check_share("context", context, 1.0)
        _check_aspect(aspect)
        self.targets, self.aspect = targets, aspect
        self.scattered = shape == "scattered"

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        owner, valid = per_sample(tokens)
        if self.scattered:
            return self._scatter(tokens, rows, valid)
        targets = tuple(self._some(tokens, rows, valid, self.scale) for _ in range(self.targets))
        union = torch.stack(targets).any(0)
        context = self._some(tokens, rows, valid, self.context) & ~union
        # A sample whose targets cover its whole context keeps one token to look from, taken from its targets.
        has = torch.zeros(len(valid), dtype=torch.int64, device=valid.device)
        has.index_add_(0, owner.flatten(), context.flatten().long())
        score = scores(tokens, rows) - (~union).float()  # a token outside the targets, if there is one
        context = context | lowest(score, tokens.valid, tokens.owner, (has == 0).long())
        return Hidden(tokens.valid & ~context, tuple(target & ~context for target in targets))

    def _some(self, tokens: Tokens, rows: Draws, valid: Tensor, share: tuple[float, float]) -> Tensor:
        score = box_distance(tokens, rows, self.aspect)[0]
        return lowest(score, tokens.valid, tokens.owner, _part(rows, valid, share))

    def _scatter(self, tokens: Tokens, rows: Draws, valid: Tensor) -> Hidden:
        count = torch.minimum(_part(rows, valid, self.context), (valid - 1).clamp(min=1))
        context = lowest(scores(tokens, rows), tokens.valid, tokens.owner, count)
        rest = tokens.valid & ~context
        parts = [_part(rows, valid, self.scale) for _ in range(self.targets)]
        return Hidden(rest, tuple(lowest(scores(tokens, rows), rest, tokens.owner, part) for part in parts))


def _part(rows: Draws, valid: Tensor, share: tuple[float, float]) -> Tensor:
    """[samples] a random share of each sample's valid tokens, at least one if there is one."""
    part = rows.uniform(1, low=share[0], high=share[1])[:, 0]
    return torch.minimum((part * valid).round().long().clamp(min=1), valid)


def box_distance(tokens: Tokens, rows: Draws, aspect: float, boxes: int = 1) -> Tensor:
    """[boxes, B, N] Chebyshev distance to random valid tokens of the own sample, sides stretched up to aspect."""
    P = tokens.coords.shape[2]
    middle = tokens.coords.flatten(0, 1)[some_token(tokens, rows, boxes)]  # [samples, boxes, P]
    far = (tokens.coords - of_tokens(middle.transpose(0, 1), tokens)).abs()
    if P > 1:
        stretch = (rows.uniform(boxes, P, low=-1.0, high=1.0) * math.log(aspect) / 2).exp()
        far *= of_tokens(stretch.transpose(0, 1), tokens)
    return far.amax(-1) + 1e-5 * scores(tokens, rows)  # ties, on a grid the rule, fall at random


def of_tokens(x: Tensor, tokens: Tokens) -> Tensor:
    """What belongs to samples [K, samples, ...] as what belongs to their tokens, [K, B, N or 1, ...]."""
    return x[:, :, None] if tokens.owner is None else x[:, tokens.owner]


def some_token(tokens: Tokens, rows: Draws, count: int) -> Tensor:
    """[samples, count] numbers of random valid tokens of each sample; of any token where it has none."""
    owner, valid = per_sample(tokens)
    number = tokens.valid.flatten().nonzero()[:, 0]
    if tokens.owner is not None:
        number = number[owner.flatten()[number].argsort(stable=True)]  # by sample
    number = torch.cat([number, number.new_zeros(1)])
    return number[(valid.cumsum(0) - valid)[:, None] + (rows.uniform(count) * valid[:, None]).long()]


def nearest(far: Tensor, tokens: Tokens, count: Tensor) -> Tensor:
    """[K, samples] the distance [K, B, N] of the count-th [samples] nearest valid token of each sample."""
    far = far.masked_fill(~tokens.valid, math.inf)
    if tokens.owner is not None:
        owner, place = tokens.owner.flatten(), places(tokens.owner).flatten()
        rows = far.new_full((len(far), len(count), int(place.max()) + 1), math.inf)
        rows[:, owner, place] = far.flatten(1)
        far = rows
    first = far.topk(min(int(count.max()), far.shape[2]), largest=False).values
    return first.gather(2, count.clamp(max=first.shape[2]).sub(1).expand(len(far), -1)[..., None])[..., 0]


# ---- content from elsewhere


def others(draws: Draws, *shape: int) -> Tensor:
    """[B, *shape] int64: random other rows of the global batch, in rank order; a row's own number where it is alone.

    Rows stand in a circle in the order of their keys, and a draw says how far to go: the choice depends on the
    samples of the global batch alone, not on how they are spread over ranks.
    """
    keys = draws.fork("circle").keys
    everyone = gather(keys)
    order = everyone.argsort()
    place = torch.searchsorted(everyone[order], keys)
    G = len(order)
    far = draws.integers(1, max(G, 2), *shape)
    return order[(place.view(-1, *[1] * len(shape)) + far) % G]


def one_other(tokens: Tokens, rows: Draws) -> Tensor | None:
    """[B] int64: another row of the global batch for each; None where there is none, or where storage is flat."""
    there = tokens.owner is None and len(rows) * world() > 1
    return others(rows.fork("partner"), 1)[:, 0] if there else None


def strangers(tokens: Tokens, rows: Draws, where: Tensor, partner: Tensor | None = None) -> tuple[Tensor, bool]:
    """Content from other samples: numbers of source tokens [B, N], and whether they count over all ranks.

    At a place of `where` [B, N] it is the same place of another sample, of `partner` [B] or each place of one of its
    own; the own token where the other has none there. In flat storage, where places of two samples have nothing to do
    with each other, it is any other valid token of this rank's row; so it is where there is no other sample.
    """
    B, N = tokens.valid.shape
    if tokens.owner is not None or (partner is None and B * world() == 1):
        return _anyone(tokens, rows, where), False
    device = tokens.valid.device
    lengths = gather(torch.full((B,), N, device=device))  # ranks may pad to different ones
    first = lengths.cumsum(0) - lengths  # [G], number of each row's first token, counted over all ranks
    place = torch.arange(N, device=device)
    own = first[rank() * B :][:B, None] + place
    row = others(rows, N) if partner is None else partner[:, None]
    everyone = gather_uneven(tokens.valid.flatten().byte())  # gloo gathers no bool
    source = torch.where(place < lengths[row], first[row] + place, own)
    return torch.where(where & everyone[source].bool(), source, own), world() > 1


def _anyone(tokens: Tokens, rows: Draws, where: Tensor) -> Tensor:
    """[B, N] at places of `where`, all valid, the number of any other valid token, by a step round all of them."""
    valid, asked = tokens.valid.flatten(), where.flatten()
    number = valid.nonzero()[:, 0]
    step = 1 + scores(tokens, rows).flatten()[asked] * (len(number) - 1)
    source = torch.arange(len(valid), device=valid.device)
    source[asked] = number[(valid.cumsum(0)[asked] - 1 + step.long()) % max(len(number), 1)]
    return source.view_as(where)
