"""What hidden patches can be predicted as, beside their own pixels: gradients that speckle does not disturb, HOG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_eo.patches import ChipEncoder
from unlabeled_eo.scales import convert
from unlabeled_eo.statistics import moments

OFFSET = 0.01  # added to amplitudes before ratios, of which 1 is the mean


class _OfPixels(nn.Module):
    """What targets need of an encoder of patches: its pixels."""

    mean: Tensor  # [C, 1, 1]
    std: Tensor

    def __init__(self, encoder: Encoder, name: str):
        super().__init__()
        if not isinstance(encoder, ChipEncoder):
            raise UserError(f"target {name!r} is made for encoders of chips, not {type(encoder).__name__}")
        self.pixels_of, self.cut = encoder.pixels, encoder.cut
        self.patch, self.scale = encoder.patch, encoder.facts["scale"]
        self.bands = 1 if encoder.bands_apart else encoder.channels  # of a token
        for name, value in zip(("mean", "std"), moments(encoder.facts), strict=True):
            self.register_buffer(name, value, persistent=False)

    def pixels(self, tokens: Tokens) -> Tensor:
        """[B, C, H, W], standardised."""
        return self.pixels_of(tokens).float()

    def amplitude(self, tokens: Tokens) -> Tensor:
        """[B, C, H, W] amplitude in units of the chip's mean; of data without a scale, above their least value."""
        image = self.pixels(tokens) * self.std + self.mean
        if self.scale == "none":
            image = image - image.amin((2, 3), keepdim=True)
        else:
            image = convert(image, self.scale, "amplitude").nan_to_num(0.0)
        return image.clamp(min=0) / image.mean((2, 3), keepdim=True).clamp(min=1e-12)


class SarGradient(_OfPixels):
    """Log ratios of means beside each pixel, at several scales: SAR-JEPA's target (arXiv 2311.15153).

    For every k: g_x = ln(Σ left / Σ right), g_y = ln(Σ top / Σ bottom) over the halves of a window of 2k + 1 pixels a
    side, and G_k = √(g_x² + g_y²). A ratio does not change with the scene's brightness, and speckle, which multiplies,
    averages out of the sums.

    Args:
        encoder: of chips.
        scales: the k; SARATR-X has 9, 13, 17 (arXiv 2405.09365).
    """

    def __init__(self, encoder: Encoder, *, scales: tuple[int, ...] = (5, 9, 13, 17)):
        super().__init__(encoder, "sar_gradient")
        if not scales or min(scales) < 1:
            raise UserError(f"scales are pixels, at least 1, not {scales}")
        self.scales: Sequence[int] = tuple(scales)
        self.width = len(self.scales) * encoder.value_width

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N, K × V]
        image = self.amplitude(tokens) + OFFSET
        return self.cut(torch.stack([ratio_gradient(image, k) for k in self.scales], 2), self.patch)


def ratio_gradient(image: Tensor, k: int) -> Tensor:
    """G_k of positive images [B, C, H, W]; windows that reach out see the edge's pixels again."""
    padded = F.pad(image.double(), (k, k, k, k), mode="replicate")
    sums = F.pad(padded.cumsum(2).cumsum(3), (1, 0, 1, 0))
    H, W = image.shape[2:]
    side = 2 * k + 1

    def box(top: int, left: int, height: int, width: int) -> Tensor:
        """Sums over [height, width] from (top, left) of each pixel's window on."""
        a = sums[..., top : top + H, left : left + W]
        b = sums[..., top : top + H, left + width : left + width + W]
        c = sums[..., top + height : top + height + H, left : left + W]
        return sums[..., top + height : top + height + H, left + width : left + width + W] - b - c + a

    gx = (box(0, 0, side, k) / box(0, k + 1, side, k)).log()
    gy = (box(0, 0, k, side) / box(k + 1, 0, k, side)).log()
    return (gx.square() + gy.square()).sqrt().to(image.dtype)


class HOG(_OfPixels):
    """Histograms of oriented gradients of cells (Dalal and Triggs, CVPR 2005), as MaskFeat predicts (2112.09133).

    Args:
        encoder: of chips.
        bins: orientations, without sign.
        cell: pixels a side; none: a patch, or 8 where that divides it.
    """

    def __init__(self, encoder: Encoder, *, bins: int = 9, cell: int | None = None):
        super().__init__(encoder, "hog")
        self.cell = cell or (8 if self.patch % 8 == 0 else self.patch)
        if bins < 2 or self.cell < 1 or self.patch % self.cell:
            raise UserError(
                f"bins must be at least 2 and cells divide a patch of {self.patch}, not {bins}, {self.cell}"
            )
        self.bins = bins
        self.width = self.bands * bins * (self.patch // self.cell) ** 2

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N, C × bins × cells]
        image = self.pixels(tokens)
        B, C, H, W = image.shape
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        dx, dy = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
        size = (dx.square() + dy.square()).sqrt()
        turn = torch.atan2(dy, dx).remainder(math.pi) / math.pi * self.bins
        low = turn.floor()
        share = turn - low
        first = low.long().remainder(self.bins)
        maps = size.new_zeros(B, C, self.bins, H, W)
        maps.scatter_add_(2, first[:, :, None], (size * (1 - share))[:, :, None])
        maps.scatter_add_(2, ((first + 1) % self.bins)[:, :, None], (size * share)[:, :, None])
        cells = F.avg_pool2d(maps.flatten(1, 2), self.cell).view(B, C, self.bins, H // self.cell, W // self.cell)
        return self.cut(F.normalize(cells, dim=2), self.patch // self.cell)
