"""Masks of volumes: windows of tissue, and the distortions that Models Genesis undoes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.masking import BlockMask, Hidden, check_share, rows_of
from unlabeled.randomness import Draws


def tissue(tokens: Tokens) -> Tensor:
    """[B, N] bool: patches whose mean lies above the mean of their crop, and that are not of one value; never air.

    Of a crop without any, every valid patch.
    """
    mean = tokens.values.mean(-1)
    count = tokens.valid.sum(1, keepdim=True).clamp(min=1)
    level = torch.where(tokens.valid, mean, 0).sum(1, keepdim=True) / count
    there = tokens.valid & (mean >= level) & (tokens.values.std(-1, correction=0) > 0)
    return torch.where(there.any(1, keepdim=True), there, tokens.valid)


class TissueWindow:
    """Hides whole structures: compact windows of tissue, in boxes; air and what is of one value is never asked for.

    Args:
        ratio: share of the tissue that is hidden.
        size: share of it that one window covers.
        aspect: how much longer than wide a window may be.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __init__(self, ratio: float = 0.6, *, size: float = 0.2, aspect: float = 1.5):
        self._block = BlockMask(ratio, aspect, size=size)

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        return self._block(replace(tokens, valid=tissue(tokens)), draws)


class Distort:
    """Shows a distorted crop and asks for the crop itself: Models Genesis (arXiv 1908.06912), with its shares.

    Of a sample's values, in its range: a random cubic Bézier curve, upward or downward (share `curve`); voxels of half
    of the patches shuffled, each within its patch (`shuffle`); windows filled with noise (`paint`), of which a share
    `inside` cut holes and the others leave nothing but windows. Windows are of whole patches.

    Args:
        curve, shuffle, paint: shares of the samples.
        inside: share of the painted samples whose windows are painted; the others are painted all around them.
        ratio: share of the patches that is painted.
        size: share of the patches that one window covers.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __init__(
        self,
        ratio: float = 0.3,
        *,
        size: float = 0.05,
        curve: float = 0.9,
        shuffle: float = 0.5,
        paint: float = 0.9,
        inside: float = 0.2,
    ):
        if not all(0 <= share <= 1 for share in (curve, shuffle, paint, inside)):
            raise UserError("distort: curve, shuffle, paint and inside are shares from 0 to 1")
        check_share("ratio", ratio), check_share("size", size)
        self._curve, self._shuffle, self._paint, self._inside = curve, shuffle, paint, inside
        self._holes, self._windows = BlockMask(ratio, size=size), BlockMask(1 - ratio, size=size, inverse=True)

    def __call__(self, tokens: Tokens, draws: Draws) -> Hidden:
        rows, values = rows_of(tokens, draws), tokens.values
        N, V = values.shape[1:]
        chance = rows.fork("which").uniform(4)[..., None, None]
        low, high = _range(tokens)
        unit = (values - low) / (high - low)
        unit = torch.where(chance[:, 0] < self._curve, bezier(unit, rows.fork("curve")), unit)
        mixed = unit.gather(-1, rows.fork("shuffle").uniform(N, V).argsort(-1))
        chosen = rows.fork("patches").chance(0.5, N)[..., None]
        unit = torch.where(chosen & (chance[:, 1] < self._shuffle), mixed, unit)
        inside = chance[:, 3, 0] < self._inside
        painted = torch.where(
            inside, self._holes(tokens, rows.fork("hole")).hidden, self._windows(tokens, rows.fork("window")).hidden
        )
        painted = painted[..., None] & (chance[:, 2] < self._paint)
        unit = torch.where(painted, rows.fork("noise").uniform(N, V), unit)
        shown = torch.where(tokens.valid[..., None], unit * (high - low) + low, values)
        return Hidden(torch.zeros_like(tokens.valid), (tokens.valid,), values=shown)


def _range(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each sample's valid tokens [B, 1, 1]; apart where all are one value."""
    there = tokens.valid[..., None]
    low = torch.where(there, tokens.values, torch.inf).amin((1, 2), keepdim=True)
    high = torch.where(there, tokens.values, -torch.inf).amax((1, 2), keepdim=True)
    low, high = (torch.where(x.isfinite(), x, 0.0) for x in (low, high))
    return low, torch.where(high > low, high, low + 1)


def bezier(unit: Tensor, draws: Draws) -> Tensor:
    """Values [B, N, V] in [0, 1] by a monotone curve a row: from 0 to 1 or, half of them, from 1 to 0.

    The curve is that of x(t) = 3 t (1 − t)² a + 3 t² (1 − t) b + t³ and the same of y with c and d, whose random
    points a ≤ b and c ≤ d make both rise; it is read off at 64 points of t.
    """
    points = draws.uniform(2, 2).sort(-1).values  # [B, x or y, 2]
    t = torch.linspace(0, 1, 64, device=unit.device)
    parts = torch.stack([3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t)], 0)
    x, y = (points @ parts + t**3).unbind(1)  # [B, 64] each
    y = torch.where(draws.fork("down").chance(0.5, 1), 1 - y, y)
    flat = unit.flatten(1).clamp(0, 1).contiguous()
    after = torch.searchsorted(x.contiguous(), flat).clamp(1, len(t) - 1)
    x0, x1, y0, y1 = (z.gather(1, at) for z in (x, y) for at in (after - 1, after))
    part = ((flat - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0, 1)
    return torch.lerp(y0, y1, part).view_as(unit)
