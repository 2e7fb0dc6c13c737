"""Fourier styles: the amplitudes of low frequencies, which sensors, seasons and gains change, and shapes hardly."""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 2  # waves a chip, up to which amplitudes are a style's
KEPT = 8  # styles, of as many chips of the training data


def filled(image: Tensor, there: Tensor) -> Tensor:
    """Bands [..., C, H, W] with each one's mean where there is no value."""
    there = there.expand_as(image)
    count = there.sum((-2, -1), keepdim=True).clamp(min=1)
    return torch.where(there, image, torch.where(there, image, 0.0).sum((-2, -1), keepdim=True) / count)


def amplitudes(image: Tensor) -> Tensor:
    """[..., C, 2 R + 1, R + 1] of waves −R … R down and 0 … R across, for each pixel; 0 where a chip is too small."""
    rows, columns = image.shape[-2:]
    waves = torch.fft.rfft2(image).abs() / (rows * columns)
    out = image.new_zeros(*image.shape[:-2], 2 * REACH + 1, REACH + 1)
    for number in _numbers(rows):
        across = _across(columns)
        out[..., number + REACH, :across] = waves[..., number, :across]
    return out


def styled(image: Tensor, style: Tensor) -> Tensor:
    """Bands [B, C, H, W] with the amplitudes of a style [B, C, 2 R + 1, R + 1]; phases stay, and so do other waves."""
    rows, columns = image.shape[-2:]
    waves, across = torch.fft.rfft2(image), _across(image.shape[-1])
    for number in _numbers(rows):
        now = waves[..., number, :across]
        wanted = style[..., number + REACH, :across] * (rows * columns)
        waves[..., number, :across] = torch.polar(wanted, now.angle())
    out: Tensor = torch.fft.irfft2(waves, s=(rows, columns))
    return out


def _numbers(rows: int) -> range:
    """Waves down a chip of so many rows, all of which have their opposite."""
    reach = min(REACH, (rows - 1) // 2)
    return range(-reach, reach + 1)


def _across(columns: int) -> int:
    return min(REACH, (columns - 1) // 2) + 1
