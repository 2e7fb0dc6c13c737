"""Heads that say of each voxel what it is, from an encoder's maps: a linear probe and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


class WayUp(nn.Module):
    """A U-Net's way up (arXiv 1505.04597): from coarse maps to fine ones, each beside what is added to it.

    Args:
        before: channels of the maps, the finest first.
        widths: channels that they have on the way up, multiples of 8.
        block: of channels before and after, goes over a map beside the one from below it.
    """

    def __init__(self, before: Sequence[int], widths: Sequence[int], block: Callable[[int, int], nn.Module]):
        super().__init__()
        coarser = [*widths[1:], widths[-1]]
        self.enter = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in zip(before, widths, strict=True))
        self.up = nn.ModuleList(block(a + b, b) for a, b in zip(coarser, widths, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:  # both the finest first
        sides = [enter(x) for enter, x in zip(self.enter, maps, strict=True)]
        x, made = sides[-1], []
        for up, side in zip(reversed(self.up), reversed(sides), strict=True):
            made.append(x := up(torch.cat([_to(x, side.shape[2:]), side], 1)))
        return made[::-1]


class Decoder(nn.Module):
    """An encoder, a U-Net's way up over its maps, and the crop itself beside the finest.

    Args:
        encoder: whose maps; trained too.
        classes: how many.
        width: channels at the finest scale; coarser ones have up to four times as many.
    """

    def __init__(self, encoder: VolumeEncoder, classes: int, width: int = 16):
        super().__init__()
        self.encoder = encoder
        widths = [min(width * 2**at, 4 * width) for at in range(len(encoder.map_widths))]
        self.stem = convolved(encoder.channels, width)
        self.way_up = WayUp(encoder.map_widths, widths, convolved)
        self.leave = nn.Sequential(convolved(widths[0] + width, width), nn.Conv3d(width, classes, 1))

    def forward(self, image: Tensor) -> Tensor:  # [B, C, D, H, W] -> [B, K, D, H, W]
        x = self.way_up(self.encoder.maps(image))[0]
        out: Tensor = self.leave(torch.cat([_to(x, image.shape[2:]), self.stem(image)], 1))
        return out


class Voxelwise(nn.Module):
    """An encoder that has a way up of its own, and class scores linear in its finest map.

    Args:
        encoder: whose `decodes` is true; trained too.
        classes: how many.
    """

    def __init__(self, encoder: VolumeEncoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.scores = nn.Conv3d(encoder.map_widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:  # [B, C, D, H, W] -> [B, K, D, H, W]
        scores: Tensor = self.scores(self.encoder.maps(image)[0])
        return scores


def convolved(before: int, after: int) -> nn.Sequential:
    """A convolution of 3 voxels a side, a norm over 8 groups of channels, an activation."""
    return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.LeakyReLU(0.01))


def _to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolated to a shape; as it is where it has that."""
    if x.shape[2:] == tuple(shape):
        return x
    return F.interpolate(x, list(shape), mode="trilinear", align_corners=False)
