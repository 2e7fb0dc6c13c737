"""Where chips are cut from scenes: all over each, at random, or whole; by area, and not from what is nodata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, choose

Sampler = Literal["auto", "grid", "random", "tiles", "whole"]
SAMPLERS: tuple[Sampler, ...] = ("auto", "grid", "random", "tiles", "whole")
COARSE = 8  # cells of the coarse mask along a chip's side


def places(
    sides: Sequence[tuple[int, int]],
    sampler: str,
    chip: int,
    stride: int | None,
    count: int | None,
    seed: int,
    blocks: Sequence[tuple[int, int, int, int] | None] | None = None,
) -> list[list[tuple[int, int, int, int]]]:
    """Windows (row, column, rows, columns) of each scene.

    auto: a scene less than two chips high and wide is one sample, whole; a larger one is cut in a grid. grid: every
    `stride` pixels, the last ones at the far edges. random: `count` chips in all, shared out by area (by default as
    many as a grid has), the same for one seed. tiles: the same, but each within one of the tiles that a file is stored
    in, so that one tile is decoded for it in place of two to four; places at their edges are drawn less often.

    Args:
        sides: rows and columns of each scene, as they are read.
        blocks: first row and column of its tiles and their sides; None: it has none, or they are of another grid.

    Raises:
        UserError: there is no such sampler, or a size makes no sense.
    """
    choose("sampler", sampler, dict.fromkeys(SAMPLERS))
    step = chip if stride is None else stride
    if min(chip, step) < 1 or (count is not None and count < 1):
        raise UserError(f"chip, stride and samples must be at least 1, not {chip}, {step} and {count}")
    if sampler not in ("random", "tiles"):
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
    for at, ((rows, columns), number) in enumerate(zip(sides, numbers, strict=True)):
        height, width = min(rows, chip), min(columns, chip)
        down = chance.integers(0, rows - height + 1, number)
        over = chance.integers(0, columns - width + 1, number)
        block = blocks[at] if blocks and sampler == "tiles" else None
        if block:
            down = _inside(down, height, rows, block[0], block[2], chance)
            over = _inside(over, width, columns, block[1], block[3], chance)
        made.append([(int(r), int(c), height, width) for r, c in zip(down, over, strict=True)])
    return made


def _inside(
    start: NDArray[np.int64], part: int, size: int, first: int, block: int, chance: np.random.Generator
) -> NDArray[np.int64]:
    """Starts of parts, drawn again within the tile of their middle where they reach out of it and could lie inside."""
    low = (start + part // 2 - first) // block * block + first
    high = np.minimum(low + block, size)
    low = np.maximum(low, 0)
    room = high - low - part
    again = low + (chance.random(len(start)) * (room + 1)).astype(np.int64)
    return np.where((room >= 0) & ((start < low) | (start + part > high)), again, start)


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
