"""Masks that change what is shown instead of hiding it: other samples' content, other places, mixtures.

They act on token embeddings (`unlabeled.contract.Alteration`), so that one corruption serves voxels, cells and nodes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from unlabeled.collectives import gather_uneven
from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.masking import (
    Hidden,
    Share,
    box_distance,
    by_sample,
    check_share,
    lowest,
    nearest,
    of_tokens,
    one_other,
    others,
    per_sample,
    places,
    rows_of,
    scores,
    strangers,
)
from unlabeled.randomness import Draws


class CorruptMask:
    """Each chosen token shows the same place of another sample (VIME, NeurIPS 2020; SCARF, arXiv 2106.15147).

    That is a draw from the place's empirical marginal. Targets are the places whose content did change.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden", "moved"})
    alters: ClassVar[bool] = True

    def __init__(self, ratio: Share = 0.3, *, together: bool = False):
        self.ratio, self.together = check_share("ratio", ratio, 1.0), together

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        _, valid = per_sample(tokens)
        ratio = rows.fork("ratio").uniform(1, low=self.ratio[0], high=self.ratio[1])[:, 0]
        count = (ratio * valid).round().long().clamp(min=1)
        chosen = lowest(scores(tokens, rows), tokens.valid, tokens.owner, count)
        partner = others(rows.fork("partner"), 1)[:, 0] if self.together and tokens.owner is None else None
        source, across = strangers(tokens, rows.fork("source"), chosen, partner)
        changed = chosen & (_content(tokens, across)[source] != tokens.values).any(-1)
        return Hidden(torch.zeros_like(chosen), (changed,), source, across=across)


class ShuffleMask:
    """Exchanges the content of a share of each sample's tokens among themselves (ShED, arXiv 2111.12062).

    They move around in a random circle, so that none stays. Targets are the moved ones.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden", "moved"})
    alters: ClassVar[bool] = True

    def __init__(self, ratio: Share = 0.15):
        self.ratio = check_share("ratio", ratio, 1.0)

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        owner, valid = per_sample(tokens)
        ratio = rows.fork("ratio").uniform(1, low=self.ratio[0], high=self.ratio[1])[:, 0]
        count = torch.minimum((ratio * valid).round().long().clamp(min=2), valid)
        chosen = lowest(scores(tokens, rows), tokens.valid, tokens.owner, torch.where(count > 1, count, 0))
        whose, score = owner.flatten(), scores(tokens, rows).flatten()
        circle = chosen.flatten().nonzero()[:, 0]
        circle = circle[score[circle].argsort(stable=True)]
        circle = circle[whose[circle].argsort(stable=True)]  # sample by sample, in random order
        mine = whose[circle]
        after = torch.where(mine == mine.roll(-1), circle.roll(-1), circle[torch.searchsorted(mine, mine)])
        number = torch.arange(len(whose), device=whose.device)
        source = number.scatter(0, circle, after).view_as(owner)
        return Hidden(torch.zeros_like(chosen), (chosen,), source)


class MixMask:
    """Mixes each sample with another, λ of its own embedding and 1 − λ of the other's (mixup, arXiv 1710.09412).

    λ is uniform, one a sample: mixup's Beta(1, 1); with `own`, the larger of λ and 1 − λ, so that a sample stays the
    larger part of its mixture (i-Mix). Where the other has no token, the own one stays. In flat storage
    a sample's tokens go round those of the other, which is of this rank.

    Raises:
        UserError: samples are instances of one whole, which has no other to be mixed with.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"mixed"})
    alters: ClassVar[bool] = True

    def __init__(self, own: bool = False):
        self.own = own

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        owner, valid = per_sample(tokens)
        if len(draws) != len(valid):
            raise UserError("mask 'mix' mixes samples, and here they are parts of one whole: choose another method")
        nothing = torch.zeros_like(tokens.valid)
        part = draws.fork("share").uniform(1)[:, 0]
        part = torch.maximum(part, 1 - part) if self.own else part
        share = part[owner]
        if tokens.owner is None:
            partner = others(draws, 1)[:, 0]
            source, across = strangers(tokens, draws, tokens.valid, partner)
            return Hidden(nothing, (nothing,), source, share, across, partner, part)
        partner = _local_others(draws)
        order, first = by_sample(owner)
        other = partner[owner]
        source = order[first[other] + places(owner) % torch.bincount(owner.flatten())[other]]
        return Hidden(nothing, (nothing,), source, share, partner=partner, part=part)


class FuseMask:
    """Blocks of a sample show mixtures with another, each block by one of K steps (Volume Fusion, arXiv 2306.16925).

    A block of step k shows (1 − k/K) of the own embeddings and k/K of the other's at the same places, step K the other
    alone; overlapping blocks are each other's up to the middle between them. Where the other has the same content, or
    no token, nothing is shown of it.

    Args:
        ratio: share of a sample's tokens that blocks would cover if none overlapped.
        size: share that one of them covers.
        steps: K.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"fused"})
    alters: ClassVar[bool] = True

    def __init__(self, ratio: float = 0.6, *, size: float = 0.1, steps: int = 4):
        check_share("ratio", ratio, 1.0), check_share("size", size)
        if steps < 1:
            raise UserError(f"fuse.steps is at least 1, not {steps}")
        self.boxes, self.size, self.steps = math.ceil(ratio / size), size, steps

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        _, valid = per_sample(tokens)
        far = box_distance(tokens, rows, 1.5, self.boxes)
        each = (self.size * valid).round().long().clamp(min=1)
        near, which = far.masked_fill(far > of_tokens(nearest(far, tokens, each), tokens), math.inf).min(0)
        steps = of_tokens(rows.fork("steps").integers(1, self.steps + 1, self.boxes).T, tokens).expand(far.shape)
        step = torch.where(tokens.valid & near.isfinite(), steps.gather(0, which[None])[0], 0)
        source, across = strangers(tokens, rows.fork("source"), step > 0, one_other(tokens, rows))
        step = torch.where((_content(tokens, across)[source] != tokens.values).any(-1), step, 0)
        return Hidden(torch.zeros_like(tokens.valid), (tokens.valid,), source, 1 - step / self.steps, across)


def _local_others(draws: Draws) -> Tensor:
    """[B] int64: another row of this rank, by a circle in the order of keys."""
    order = draws.fork("circle").keys.argsort()
    return torch.empty_like(order).scatter(0, order, order.roll(1))


def _content(tokens: Tokens, across: bool) -> Tensor:
    """[tokens, V] of every rank where sources count over all of them."""
    values = tokens.values.flatten(0, 1)
    return gather_uneven(values) if across else values
