"""Where chips are cut from scenes: all over each, at random, or whole; by area, and not from what is nodata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, choose

Sampler = Literal["auto", "grid", "random", "whole"]
SAMPLERS: tuple[Sampler, ...] = ("auto", "grid", "random", "whole")
COARSE = 8  # cells of the coarse mask along a chip's side


def places(
    sides: Sequence[tuple[int, int]], sampler: str, chip: int, stride: int | None, count: int | None, seed: int
) -> list[list[tuple[int, int, int, int]]]:
    """Windows (row, column, rows, columns) of each scene.

    auto: a scene less than two chips high and wide is one sample, whole; a larger one is cut in a grid. grid: every
    `stride` pixels, the last ones at the far edges. random: `count` chips in all, shared out by area (by default as
    many as a grid has), the same for one seed.

    Args:
        sides: rows and columns of each scene, as they are read.

    Raises:
        UserError: there is no such sampler, or a size makes no sense.
    """
    choose("sampler", sampler, dict.fromkeys(SAMPLERS))
    step = chip if stride is None else stride
    if min(chip, step) < 1 or (count is not None and count < 1):
        raise UserError(f"chip, stride and samples must be at least 1, not {chip}, {step} and {count}")
    if sampler != "random":
        return [
            [(0, 0, rows, columns)]
            if sampler == "whole" or (sampler == "auto" and max(rows, columns) < 2 * chip)
            else _grid(rows, columns, chip, step)
            for rows, columns in sides
        ]
    areas = np.array([rows * columns for rows, columns in sides], dtype=np.float64)
    count = count or sum(len(_grid(rows, columns, chip, chip)) for rows, columns in sides)
    shares = np.floor(np.cumsum(areas) / areas.sum() * count + 1e-9).astype(int)
    numbers = np.diff(shares, prepend=0)
    chance = np.random.default_rng(seed)
    made = []
    for (rows, columns), number in zip(sides, numbers, strict=True):
        height, width = min(rows, chip), min(columns, chip)
        down = chance.integers(0, rows - height + 1, number)
        over = chance.integers(0, columns - width + 1, number)
        made.append([(int(r), int(c), height, width) for r, c in zip(down, over, strict=True)])
    return made


def _grid(rows: int, columns: int, chip: int, step: int) -> list[tuple[int, int, int, int]]:
    height, width = min(rows, chip), min(columns, chip)
    return [(r, c, height, width) for r in _starts(rows, height, step) for c in _starts(columns, width, step)]


def _starts(size: int, part: int, step: int) -> list[int]:
    last = size - part
    return [*range(0, last, step), last]


def centred(rows: int, columns: int, side: int) -> tuple[int, int, int, int]:
    """The middle of a scene, `side` pixels high and wide where it has so many."""
    height, width = min(rows, side), min(columns, side)
    return (rows - height) // 2, (columns - width) // 2, height, width


def seen_share(
    windows: Sequence[tuple[int, int, int, int]], mask: NDArray[np.bool_], rows: int, columns: int
) -> NDArray[np.float64]:
    """[n] how much of each window is valid, from a coarse mask of its scene, by sums over its area."""
    down, over = mask.shape
    sums = np.zeros((down + 1, over + 1))
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    shares = []
    for row, column, height, width in windows:
        top, left = row * down // rows, column * over // columns
        low, right = (
            max(top + 1, -(-(row + height) * down // rows)),
            max(left + 1, -(-(column + width) * over // columns)),
        )
        total = sums[low, right] - sums[top, right] - sums[low, left] + sums[top, left]
        shares.append(total / ((low - top) * (right - left)))
    return np.array(shares)
