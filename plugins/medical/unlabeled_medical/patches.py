"""Volumes as cubic patches: what every encoder of volumes cuts alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch, Encoder, Facts, Tokens
from unlabeled.errors import UserError

GRID = "grid"  # in the context: [B, d, h, w, 0], whose shape says how many patches every crop has along each axis


class VolumeEncoder(Encoder):
    """Tokens are patches of `patch`³ voxels: V = C × patch³, P = 3 (depth, height, width).

    A patch outside of its volume, where a crop hangs over, is not valid, nor is one with a voxel that is excluded.
    """

    coord_width = 3
    map_widths: Sequence[int]  # of `maps`
    decodes: bool = False  # the finest of `maps` is of voxels and of a way up, so that a head needs none of its own

    def __init__(self, facts: Facts, width: int, patch: int):
        super().__init__()
        if min(width, patch) < 1:
            raise UserError(f"an encoder's width and patch must be at least 1, not {width} and {patch}")
        self.width, self.patch, self.channels = width, patch, int(facts["channels"])
        self.value_width = self.channels * patch**3

    def tokenize(self, batch: Batch) -> Tokens:
        image, p = batch["image"], self.patch
        size = torch.tensor(image.shape[2:], device=image.device)
        short = [-side % p for side in image.shape[2:]]
        image = F.pad(image, (0, short[2], 0, short[1], 0, short[0]))
        grid = [side // p for side in image.shape[2:]]
        values = cut(image, p)
        coords = centres(grid, image.device).expand(image.shape[0], -1, -1)
        padded = torch.tensor(image.shape[2:], device=image.device)
        valid, where = _places(coords, batch.get("where"), padded / size, p / size)
        if "excluded" in batch:
            mask = F.pad(batch["excluded"][:, None].float(), (0, short[2], 0, short[1], 0, short[0]))
            valid = valid & (F.max_pool3d(mask, p).flatten(1) == 0)
        context = {GRID: image.new_empty(image.shape[0], *grid, 0)}
        return Tokens(torch.where(valid[..., None], values, 0), coords, valid, context, where=where)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Features for dense use [B, C, d, h, w], the finest first, of crops [B, C, D, H, W] of which all is seen."""
        raise NotImplementedError

    def image(self, values: Tensor, grid: list[int]) -> Tensor:
        """Patches [B, N, V] put together again: [B, C, D, H, W]."""
        p = self.patch
        cubes = values.view(values.shape[0], *grid, self.channels, p, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return cubes.reshape(values.shape[0], self.channels, *(side * p for side in grid))


def cut(image: Tensor, side: int) -> Tensor:
    """Cubes of a volume [B, C, D, H, W] as tokens [B, N, C × side³]."""
    B, C, D, H, W = image.shape
    cubes = image.reshape(B, C, D // side, side, H // side, side, W // side, side).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cubes.reshape(B, -1, C * side**3)


def grid_of(tokens: Tokens) -> list[int]:
    """How many patches are along each axis, from a shape: it asks the device nothing, and torch.export follows it."""
    return list(tokens.context[GRID].shape[1:4])


def centres(grid: list[int], device: torch.device) -> Tensor:
    """[1, N, 3] middles of patches, in [0, 1]."""
    axes = [(torch.arange(side, device=device) + 0.5) / side for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, 3)


def _places(coords: Tensor, where: Tensor | None, stretch: Tensor, part: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which patches touch their volume [B, N], and their middles in it [B, N, 3].

    Args:
        coords: [B, N, 3] in the padded crop.
        where: [B, 3, 4] of the crop in its volume.
        stretch: [3] how much larger the padded crop is than the crop.
        part: [3] a patch's side as a share of the crop's.
    """
    if where is None:
        return torch.ones(coords.shape[:2], dtype=torch.bool, device=coords.device), None
    ways, start = where[..., :3], where[..., 3]
    middle = torch.einsum("bij,bnj->bni", ways, coords * stretch) + start[:, None]
    reach = 0.5 + 0.5 * torch.einsum("bij,j->bi", ways.abs(), part.to(ways.dtype))
    return ((middle - 0.5).abs() < reach[:, None] - 1e-4).all(-1), middle
