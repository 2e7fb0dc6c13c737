"""Masks of local windows."""

from __future__ import annotations

from typing import ClassVar

import torch

from unlabeled.contract import Tokens
from unlabeled.masking import Hidden, box_distance, check_share, lowest, per_sample, rows_of, scores
from unlabeled.randomness import Draws


class LocalWindow:
    """Shows a part of one small window, and asks for the rest of it (LoMaR, arXiv 2206.00790).

    All outside of the window is neither shown nor asked for. Nodata takes no part; at an edge a window is longer than
    wide.

    Args:
        window: share of the valid tokens that the window has (LoMaR: 7 × 7 of 14 × 14).
        ratio: share of the window that is asked for.
        aspect: how much longer than wide a window may be.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __init__(self, window: float = 0.25, ratio: float = 0.8, aspect: float = 1.0):
        self.window, self.ratio = check_share("window", window, 1.0)[0], check_share("ratio", ratio)[0]
        self.aspect = aspect

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows = rows_of(tokens, draws)
        _, valid = per_sample(tokens)
        size = torch.minimum((self.window * valid).round().long().clamp(min=2), valid)
        inside = lowest(box_distance(tokens, rows, self.aspect)[0], tokens.valid, tokens.owner, size)
        count = (self.ratio * size).round().long().clamp(min=1)
        count = torch.minimum(count, (size - 1).clamp(min=0))
        asked = lowest(scores(tokens, rows), inside, tokens.owner, count)
        return Hidden(tokens.valid & ~(inside & ~asked), (asked,))
