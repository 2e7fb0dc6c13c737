"""Random changes of batches [B, C, D, H, W]; each works on the rows that chance chose, and changes nothing in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.randomness import Draws

Change = Callable[[Tensor, Draws], Tensor]
RADIUS = 3  # voxels that a blur reaches: three deviations of the widest


def _row(values: Tensor) -> Tensor:
    """[B, 1] as [B, 1, 1, 1, 1]."""
    return values[..., None, None, None]


def rotate(image: Tensor, matrix: Tensor, floor: Tensor, mode: str) -> Tensor:
    """Resampled so that place c holds what was at M (c − ½) + ½; outside is the floor [B, C] (what pads a crop)."""
    ground = floor[..., None, None, None]
    theta = F.pad(matrix.flip(1, 2), (0, 1))  # torch counts x, y, z
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image - ground, grid, mode=mode, align_corners=False) + ground


def noise(image: Tensor, draws: Draws, most: float = 0.1) -> Tensor:
    """Adds Gaussian noise of a variance up to `most` in units of the normalised image."""
    std = draws.uniform(1, high=most).sqrt()
    return image + _row(std) * draws.normal(*image.shape[1:])


def blur(image: Tensor, draws: Draws, sigma: tuple[float, float] = (0.5, 1.0)) -> Tensor:
    """Gaussian blur, in voxels."""
    taps = torch.arange(-RADIUS, RADIUS + 1, device=image.device)
    weight = (-0.5 * (taps / draws.uniform(1, low=sigma[0], high=sigma[1])).square()).exp()  # [B, taps]
    weight = weight / weight.sum(1, keepdim=True)
    for axis in (2, 3, 4):
        sides = [0, 0, 0, 0, 0, 0]
        sides[2 * (4 - axis)] = sides[2 * (4 - axis) + 1] = RADIUS
        wide, size = F.pad(image, sides, mode="replicate"), image.shape[axis]
        image = sum(
            (_row(weight[:, tap, None]) * wide.narrow(axis, tap, size) for tap in range(len(taps))),
            start=torch.zeros_like(image),
        )
    return image


def brightness(image: Tensor, draws: Draws, factor: tuple[float, float] = (0.75, 1.25)) -> Tensor:
    """Multiplies."""
    return image * _row(draws.uniform(1, low=factor[0], high=factor[1]))


def contrast(image: Tensor, draws: Draws, factor: tuple[float, float] = (0.75, 1.25)) -> Tensor:
    """Moves values away from or towards their mean, inside their range."""
    mean = image.mean((2, 3, 4), keepdim=True)
    low, high = _range(image)
    made = (image - mean) * _row(draws.uniform(1, low=factor[0], high=factor[1])) + mean
    return torch.minimum(torch.maximum(made, low), high)


def gamma(image: Tensor, draws: Draws, power: tuple[float, float] = (0.7, 1.5)) -> Tensor:
    """Raises values, in their range, to a power."""
    low, high = _range(image)
    span = (high - low).clamp(min=1e-6)
    unit = ((image - low) / span).clamp(0, 1)
    return unit ** _row(draws.uniform(1, low=power[0], high=power[1])) * span + low


def low_resolution(image: Tensor, draws: Draws, scale: tuple[float, float] = (0.5, 1.0)) -> Tensor:
    """Keeps the nearest of fewer voxels, and interpolates between them."""
    shares = draws.uniform(1, low=scale[0], high=scale[1])[:, 0].tolist()
    made = []
    for row, share in zip(image.split(1), shares, strict=True):
        small = [max(1, round(side * share)) for side in image.shape[2:]]
        few = F.interpolate(row, small, mode="nearest")
        made.append(F.interpolate(few, image.shape[2:], mode="trilinear", align_corners=False))
    return torch.cat(made)


def window(image: Tensor, draws: Draws, most: float = 0.1) -> Tensor:
    """Jitters the window of calibrated values: its middle and its width, cut to −1 … 1 as the window is."""
    middle = draws.uniform(1, low=-most, high=most)
    width = draws.uniform(1, low=1 - most, high=1 + most)
    return ((image - _row(middle)) / _row(width)).clamp(-1, 1)


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """The least and greatest value of each row and channel."""
    return image.amin((2, 3, 4), keepdim=True), image.amax((2, 3, 4), keepdim=True)
