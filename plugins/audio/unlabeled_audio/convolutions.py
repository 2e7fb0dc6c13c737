"""Convolutions over clips of uneven length, of which padding is no part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.layers import BatchNorm, is_exporting


class Stage(nn.Module):
    """Convolution, halving of bands and frames, and batch norm over the frames that are there.

    The norm comes after the halving, where it costs a quarter.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """[B, C, F, T], [B, T / 2] bool, what is there afterwards -> [B, C', F / 2, T / 2], zero elsewhere."""
        x = nn.functional.max_pool2d(self.conv(x), 2).permute(0, 3, 1, 2)  # [B, T, C, F]
        if is_exporting():  # a program cannot choose rows, and in evaluation the norm is of each by itself
            out = torch.relu(self.norm(x.flatten(0, 1))).view(x.shape)
            return torch.where(keep[..., None, None], out, 0).permute(0, 2, 3, 1)
        rows = keep.flatten().nonzero()[:, 0]
        there = torch.relu(self.norm(x.flatten(0, 1)[rows]))
        out = torch.zeros(keep.numel(), *there.shape[1:], dtype=there.dtype, device=x.device).index_copy(0, rows, there)
        return out.view(*keep.shape, *there.shape[1:]).permute(0, 2, 3, 1)
