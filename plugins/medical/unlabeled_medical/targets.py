"""What hidden patches can be predicted as, beside their own voxels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_medical.patches import VolumeEncoder, cut, grid_of

GOLDEN = (1 + math.sqrt(5)) / 2
NEAR = math.sqrt(5) / 3  # cosine between neighbouring axes


def axes() -> Tensor:
    """[10, 3] unit vectors, evenly spread: a dodecahedron's twenty corners without the opposite ones."""
    corners = [(1.0, i, j) for i in (1.0, -1.0) for j in (1.0, -1.0)]
    for sign in (1.0, -1.0):
        one = (0.0, 1 / GOLDEN, sign * GOLDEN)
        corners += [one, one[1:] + one[:1], one[2:] + one[:2]]
    return F.normalize(torch.tensor(corners), dim=1)


class HOG(nn.Module):
    """Histograms of oriented gradients in three dimensions (Kläser et al., BMVC 2008), for MaskFeat (2112.09133).

    Each voxel's gradient votes, by its length, for those of ten axes that it lies nearest to, whichever way it points;
    votes are added up over cells, and the ten of a cell and channel have length one. Slopes are taken from neighbours
    that are valid alone: the end of a volume, or of what is excluded, is no edge.

    Args:
        encoder: of volumes.
        cell: voxels a side; none: half a patch, or all of it where its side is odd.
    """

    axes: Tensor  # [10, 3]

    def __init__(self, encoder: Encoder, *, cell: int | None = None):
        super().__init__()
        if not isinstance(encoder, VolumeEncoder):
            raise UserError(f"target 'hog' is made for encoders of volumes, not {type(encoder).__name__}")
        self.image_of, self.patch = encoder.image, encoder.patch
        self.cell = cell or (self.patch if self.patch % 2 else self.patch // 2)
        if self.cell < 1 or self.patch % self.cell:
            raise UserError(f"cells divide a patch of {self.patch} voxels a side, not {self.cell}")
        self.register_buffer("axes", axes(), persistent=False)
        self.width = encoder.channels * len(self.axes) * (self.patch // self.cell) ** 3

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N, C × 10 × cells]
        grid = grid_of(tokens)
        image = self.image_of(tokens.values.float(), grid)
        there = F.interpolate(tokens.valid.view(-1, 1, *grid).float(), image.shape[2:])
        sides = torch.stack([_across(image, there, axis) for axis in (2, 3, 4)], 2)  # [B, C, 3, D, H, W]
        length = sides.norm(dim=2, keepdim=True)
        votes = torch.einsum("bcidhw,ki->bckdhw", sides / length.clamp(min=1e-12), self.axes).abs() - NEAR
        votes = votes.clamp(min=0)
        votes = votes / votes.sum(2, keepdim=True).clamp(min=1e-12) * length
        cells = F.avg_pool3d(votes.flatten(1, 2), self.cell)
        cells = F.normalize(cells.unflatten(1, votes.shape[1:3]), dim=2).flatten(1, 2)
        return cut(cells, self.patch // self.cell)


def _across(image: Tensor, there: Tensor, axis: int) -> Tensor:
    """Slope [B, C, D, H, W] along an axis, of the voxels on both sides or of the one that is valid; 0 without any."""
    none = torch.zeros_like(there.narrow(axis, 0, 1)), torch.zeros_like(image.narrow(axis, 0, 1))
    inner = image.shape[axis] - 1
    steps = image.narrow(axis, 1, inner) - image.narrow(axis, 0, inner)
    known = there.narrow(axis, 1, inner) * there.narrow(axis, 0, inner)
    count, total = (
        torch.cat([z, x], axis) + torch.cat([x, z], axis) for x, z in zip((known, steps * known), none, strict=True)
    )
    return total / count.clamp(min=1)
