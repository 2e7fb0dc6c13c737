"""Masks that know edges; the core's own serve where nearness means nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden, lowest, per_sample, rows_of, scores
from unlabeled.randomness import Draws

HOPS = 64  # farther nodes count as equally far


class NeighbourhoodMask:
    """Hides the round(ratio × n) nodes of each graph that are the fewest hops from a random one, ties at random."""

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __init__(self, ratio: float = 0.5):
        if not 0 < ratio < 1:
            raise UserError(f"ratio is a share of the nodes: between 0 and 1, not {ratio}")
        self.ratio = ratio

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        _, count = per_sample(tokens)
        draws = rows_of(tokens, draws)
        first = lowest(scores(tokens, draws), tokens.valid, tokens.owner, torch.ones_like(count))[0]
        far = hops(tokens.context["edge_index"], first) + scores(tokens, draws)[0]
        some = torch.minimum((self.ratio * count).round().long().clamp(min=1), (count - 1).clamp(min=0))
        hidden = lowest(far[None], tokens.valid, tokens.owner, some)
        return Hidden(hidden, (hidden,))


def hops(edge_index: Tensor, start: Tensor) -> Tensor:
    """[N] edges from each node to the nearest of `start` [N] bool, HOPS where there is no way."""
    source, target = edge_index
    far = torch.where(start, 0.0, float(HOPS))
    for _ in range(HOPS):
        nearer = far.scatter_reduce(0, target, far[source] + 1, "amin")
        if nearer.equal(far):
            break
        far = nearer
    return far
