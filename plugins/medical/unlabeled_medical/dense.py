"""Heads that say of each voxel what it is, from an encoder's maps: a linear probe and a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled_medical.patches import VolumeEncoder


class LinearProbe(nn.Module):
    """Class scores linear in the maps of a frozen encoder, each standardised and interpolated to the crop.

    Args:
        encoder: whose maps; its weights are left alone, and it is always in eval mode.
        classes: how many.
    """

    def __init__(self, encoder: VolumeEncoder, classes: int):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.norms = nn.ModuleList(nn.BatchNorm3d(width, affine=False) for width in encoder.map_widths)
        self.scores = nn.ModuleList(nn.Conv3d(width, classes, 1) for width in encoder.map_widths)

    def forward(self, image: Tensor) -> Tensor:  # [B, C, D, H, W] -> [B, K, D, H, W]
        with torch.no_grad():
            maps = self.encoder.eval().maps(image)
        parts = [score(norm(x)) for score, norm, x in zip(self.scores, self.norms, maps, strict=True)]
        return torch.stack([_to(part, image.shape[2:]) for part in parts]).sum(0)  # linear: scores commute with it


class Decoder(nn.Module):
    """An encoder and a U-Net's way up (arXiv 1505.04597) over its maps and the crop itself.

    Args:
        encoder: whose maps; trained too.
        classes: how many.
        width: channels at the finest scale; coarser ones have up to four times as many.
    """

    def __init__(self, encoder: VolumeEncoder, classes: int, width: int = 16):
        super().__init__()
        self.encoder = encoder
        widths = [min(width * 2**at, 4 * width) for at in range(len(encoder.map_widths))]
        self.stem = _convolved(encoder.channels, width)
        self.enter = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in zip(encoder.map_widths, widths, strict=True))
        self.up = nn.ModuleList(_convolved(a + b, b) for a, b in zip([*widths[1:], widths[-1]], widths, strict=True))
        self.leave = nn.Sequential(_convolved(widths[0] + width, width), nn.Conv3d(width, classes, 1))

    def forward(self, image: Tensor) -> Tensor:  # [B, C, D, H, W] -> [B, K, D, H, W]
        maps = [enter(x) for enter, x in zip(self.enter, self.encoder.maps(image), strict=True)]
        x = maps[-1]
        for up, side in zip(reversed(self.up), reversed(maps), strict=True):
            x = up(torch.cat([_to(x, side.shape[2:]), side], 1))
        out: Tensor = self.leave(torch.cat([_to(x, image.shape[2:]), self.stem(image)], 1))
        return out


def _convolved(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.LeakyReLU(0.01))


def _to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolated to a shape; as it is where it has that."""
    if x.shape[2:] == tuple(shape):
        return x
    return F.interpolate(x, list(shape), mode="trilinear", align_corners=False)
