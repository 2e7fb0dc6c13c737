"""Speckle: the multiplicative noise of coherent imaging, made, averaged and smoothed; on the device, from draws."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.randomness import Draws
from unlabeled_eo.scales import Scale

SMALLEST = 1e-30  # power that a logarithm is taken of


def gamma(looks: Tensor, shape: tuple[int, ...], draws: Draws) -> Tensor:
    """[B, *shape] of Γ(L, 1/L): mean 1, variance 1/L; `looks` [B] is L, any number above 0.

    A processor's generator is faster than draws, which are made for devices that do all at once: the numbers of the two
    differ, what they follow does not.
    """
    if looks.device.type == "cpu":
        standard = looks.new_empty(len(looks), *shape, dtype=torch.float32)
        for out, one, row in zip(standard.numpy(), looks.tolist(), draws.each(), strict=True):
            chance = np.random.Generator(np.random.SFC64(row.seed()))  # two and a half times as fast as torch's
            chance.standard_gamma(one, dtype=np.float32, out=out)
    else:
        standard = gamma_by_draws(looks, shape, draws)
    return standard / looks.view(-1, *(1,) * len(shape))


def gamma_by_draws(looks: Tensor, shape: tuple[int, ...], draws: Draws) -> Tensor:
    """[B, *shape] of Γ(L, 1), by rejection (Marsaglia and Tsang, ACM TOMS 2000): about one in twenty is drawn again."""
    column = looks.view(-1, *(1,) * len(shape))
    d = torch.where(column < 1, column + 1, column) - 1 / 3
    c = (9 * d).rsqrt()
    x, u = draws.normal(*shape), draws.uniform(*shape)
    v = (1 + c * x) ** 3
    out, good = (d * v).flatten(1), _accepted(x, u, v, d).flatten(1)
    for _ in range(64):  # each leaves a twentieth of what was left
        rest = (~good).nonzero()
        if not len(rest):
            break
        row, place = rest.unbind(1)
        d_, c_ = d.flatten()[row], c.flatten()[row]
        radius = (-2 * (1 - draws.uniform_at(row, place)).log()).sqrt()
        x = radius * (2 * torch.pi * draws.uniform_at(row, place)).cos()
        v = (1 + c_ * x) ** 3
        fine = _accepted(x, draws.uniform_at(row, place), v, d_)
        out[row, place] = torch.where(fine, d_ * v, out[row, place])
        good[row, place] = fine
    out = out.view(len(looks), *shape)
    if bool((looks < 1).any()):
        out = torch.where(column < 1, out * (1 - draws.uniform(*shape)) ** (1 / column), out)
    return out


def _accepted(x: Tensor, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
    return (v > 0) & ((1 - u).log() < 0.5 * x.square() + d - d * v + d * v.clamp(min=1e-30).log())


def speckled(image: Tensor, looks: Tensor, scale: Scale, draws: Draws) -> Tensor:
    """Images [B, C, H, W] with speckle of `looks` [B]: power × n, amplitude × √n, decibels + 10 log₁₀ n.

    On data that have speckle already 1/ENL' = 1/ENL + 1/L + 1/(ENL × L).
    """
    n = gamma(looks, tuple(image.shape[1:]), draws)
    if scale == "db":
        return image + 10 * n.clamp(min=SMALLEST).log10()
    return image * n.sqrt() if scale == "amplitude" or image.is_complex() else image * n


def smoothed(image: Tensor, valid: Tensor, side: int, scale: Scale) -> Tensor:
    """Means of power over squares of `side` pixels, of what is valid [B, 1, H, W]: the boxcar filter, multi-looking."""
    power = to_power(image, scale)
    weight = valid.to(power.dtype)
    pad = (side // 2, (side - 1) // 2, side // 2, (side - 1) // 2)
    total = F.avg_pool2d(F.pad(power * weight, pad), side, 1)
    count = F.avg_pool2d(F.pad(weight, pad), side, 1)
    return torch.where(valid, from_power(total / count.clamp(min=1e-6), scale), image)


def despeckled(image: Tensor, valid: Tensor, side: int, looks: Tensor, scale: Scale) -> Tensor:
    """Lee's filter (IEEE TPAMI 1980): each pixel between itself and the mean about it, by how even its place is.

    Args:
        looks: [B] equivalent number of looks that the speckle of the data has.
    """
    power = to_power(image, scale)
    weight = valid.to(power.dtype)
    pad = (side // 2,) * 4
    count = F.avg_pool2d(F.pad(weight, pad), side, 1).clamp(min=1e-6)
    mean = F.avg_pool2d(F.pad(power * weight, pad), side, 1) / count
    square = F.avg_pool2d(F.pad(power.square() * weight, pad), side, 1) / count
    noise = 1 / looks.view(-1, 1, 1, 1)
    spread = (square - mean.square()).clamp(min=0)
    signal = ((spread - mean.square() * noise) / (1 + noise)).clamp(min=0)
    share = signal / spread.clamp(min=1e-20)
    return torch.where(valid, from_power(mean + share.clamp(max=1) * (power - mean), scale), image)


def to_power(image: Tensor, scale: Scale) -> Tensor:
    """Power of an image on a scale; of what has none, the values as they are."""
    if scale == "db":
        return 10 ** (image / 10)
    return image.square() if scale == "amplitude" else image


def from_power(power: Tensor, scale: Scale) -> Tensor:
    """The other way."""
    if scale == "db":
        return 10 * power.clamp(min=SMALLEST).log10()
    return power.clamp(min=0).sqrt() if scale == "amplitude" else power


def sub_aperture(image: Tensor, part: Tensor, share: Tensor) -> Tensor:
    """Complex images [B, C, H, W] as a part of their azimuth spectrum shows them: a `share` [B] of it from `part` [B].

    A sub-aperture looks from a part of the way that the sensor flew: other speckle, coarser along the rows' axis.
    """
    rows = image.shape[-2]
    width = (share * rows).round().clamp(1, rows)
    start = (part * (rows - width + 1)).floor().clamp(max=rows - 1)
    at = torch.arange(rows, device=image.device)
    kept = (at >= start[:, None]) & (at < (start + width)[:, None])
    spectrum = torch.fft.fftshift(torch.fft.fft(image, dim=-2), dim=-2) * kept[:, None, :, None]
    seen: Tensor = torch.fft.ifft(torch.fft.ifftshift(spectrum, dim=-2), dim=-2)
    return seen * (rows / width).sqrt()[:, None, None, None]
