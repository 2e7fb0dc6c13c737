"""Convolutions over clips of uneven length, of which padding is no part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.layers import BatchNorm


class Stage(nn.Module):
    """Convolution, batch norm over the frames that are there, and a halving of bands and frames."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """[B, C, F, T], [B, T] bool -> [B, C', F / 2, T / 2]; zero where a frame is not there."""
        x = self.conv(x)
        frames = x.permute(0, 3, 1, 2)  # [B, T, C, F]
        there = torch.relu(self.norm(frames[keep]))
        x = torch.zeros_like(frames, dtype=there.dtype).masked_scatter(keep[..., None, None], there)
        return nn.functional.max_pool2d(x.permute(0, 2, 3, 1), 2)
