"""Turns and mirrors of volumes about their axes, without interpolation."""

from __future__ import annotations

from itertools import permutations, product

import torch
from torch import Tensor

from unlabeled.errors import UserError

AXES = "dhw"  # depth, height and width


def axes_of(what: str, letters: str) -> list[int]:
    """Numbers of the axes of a volume that letters name.

    Raises:
        UserError: a letter is of no axis.
    """
    if not set(letters) <= set(AXES):
        raise UserError(f"{what} names axes by the letters d, h and w, not {letters!r}")
    return [at for at, letter in enumerate(AXES) if letter in letters]


def axis_turns(plane: str) -> Tensor:
    """[K, 3, 3] signed permutations that turn: 24 of a cube, or 4 about the axis; the identity comes first.

    Row i says which axis, and in which direction, of the turned volume axis i of the volume becomes.
    """
    every = [
        matrix
        for places in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if torch.det(matrix := torch.diag(torch.tensor(signs))[:, list(places)]) > 0
    ]
    if plane != "all":
        axis = AXES.index(plane)
        every = [matrix for matrix in every if matrix[axis, axis] == 1]
    every.sort(key=lambda matrix: -float(matrix.trace()))
    return torch.stack(every)


def turned(image: Tensor, matrix: Tensor) -> Tensor:
    """Volumes [B, C, D, H, W] turned by a signed permutation [3, 3]: voxel c comes from M (c − middle) + middle."""
    to = matrix.abs().argmax(1).tolist()  # axis i of the volume becomes axis to[i]
    order = [to.index(axis) for axis in range(3)]
    mirrored = [axis + 2 for axis in range(3) if matrix[order[axis], axis] < 0]
    return image.permute(0, 1, *(axis + 2 for axis in order)).flip(mirrored)


def moved(where: Tensor, matrix: Tensor) -> Tensor:
    """`where` [B, 3, 4] of volumes whose place c now holds what was at M (c − ½) + ½; matrix [3, 3] or [B, 3, 3]."""
    ways, start = where[..., :3], where[..., 3:]
    half = torch.full_like(start, 0.5)
    return torch.cat([ways @ matrix, start + ways @ (half - matrix @ half)], -1)


def flattened(where: Tensor, depth: float) -> Tensor:
    """`where` [3, 4] of a volume that shows, all along its depth, what was at one depth in [0, 1]."""
    ways, start = where[:, :3].clone(), where[:, 3:]
    start = start + depth * ways[:, :1]
    ways[:, 0] = 0
    return torch.cat([ways, start], 1)


def about_axis(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations [B, 3, 3] by angles [B] (radians) about axes [B] int64."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, device=axis.device).repeat(len(axis), 1, 1)
    row = torch.arange(len(axis), device=axis.device)
    matrix[row, first, first] = matrix[row, second, second] = angle.cos()
    matrix[row, first, second], matrix[row, second, first] = -angle.sin(), angle.sin()
    return matrix
