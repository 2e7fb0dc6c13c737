"""Chips as square patches: what every encoder of chips cuts alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch, Encoder, Facts, Tokens
from unlabeled.errors import UserError
from unlabeled_eo.statistics import moments, standardised, there

GRID = "grid"  # in the context: [B, h, w, 0], whose shape says how many patches are down and across in every chip
VALID = 0.5  # share of a patch's pixels that must be valid


class ChipEncoder(Encoder):
    """Tokens are patches of `patch`² pixels, standardised: V = C × patch², P = 2 (row, column).

    A patch of which less than half is valid is not; in one that is, pixels without a value are their band's mean.
    """

    coord_width = 2
    bands_apart = False  # whether a token is of one band
    map_widths: Sequence[int]  # of `maps`
    mean: Tensor  # [C, 1, 1] of the bands
    std: Tensor

    def __init__(self, facts: Facts, width: int, patch: int):
        super().__init__()
        if min(width, patch) < 1:
            raise UserError(f"an encoder's width and patch must be at least 1, not {width} and {patch}")
        self.facts, self.width, self.patch, self.channels = facts, width, patch, len(facts["channels"])
        self.value_width = self.channels * patch**2
        for name, value in zip(("mean", "std"), moments(facts), strict=True):
            self.register_buffer(name, value, persistent=False)

    def tokenize(self, batch: Batch) -> Tokens:
        image, good = self._padded(batch)
        grid = [side // self.patch for side in image.shape[2:]]
        share = F.avg_pool2d(good.any(1, keepdim=True).float(), self.patch).flatten(1)  # [B, N]
        valid = enough(share)
        values = self.patches(image)
        coords = centres(grid, image.device).expand(image.shape[0], -1, -1)
        context = {GRID: image.new_empty(image.shape[0], *grid, 0)}
        where = self._where(batch, coords, image)
        return Tokens(torch.where(valid[..., None], values, 0), coords, valid, context, where=where)

    def _padded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Standardised bands and what is valid of each [B, C, H, W], of sides that patches divide."""
        image = standardised(batch, self.facts, (self.mean, self.std))
        good = there(batch).expand_as(image)
        down, over = (-side % self.patch for side in image.shape[2:])
        return F.pad(image, (0, over, 0, down)), F.pad(good, (0, over, 0, down))

    def _where(self, batch: Batch, coords: Tensor, image: Tensor) -> Tensor | None:
        """Places in the uncut chip, where the view knows them."""
        ways = batch.get("where")
        if ways is None:
            return None
        size = torch.tensor(batch["image"].shape[2:], device=coords.device)
        stretch = torch.tensor(image.shape[2:], device=coords.device) / size
        return torch.einsum("bij,bnj->bni", ways[..., :2], coords * stretch) + ways[:, None, :, 2]

    def pixels(self, tokens: Tokens) -> Tensor:
        """Tokens put together again: [B, C, H, W], standardised."""
        return self.image(tokens.values, grid_of(tokens))

    def cut(self, maps: Tensor, side: int) -> Tensor:
        """What belongs to tokens of K maps of every band [B, C, K, h, w], of which a patch has side² places."""
        B, C, K, h, w = maps.shape
        cut = maps.reshape(B, C, K, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4, 6)
        return cut.reshape(B, (h // side) * (w // side), C * K * side**2)

    def patches(self, image: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, C × patch²]."""
        return self.cut(image[:, :, None], self.patch)

    def image(self, values: Tensor, grid: Sequence[int]) -> Tensor:
        """Patches [B, N, C × patch²] put together again: [B, C, H, W]."""
        p, C = self.patch, self.channels
        cut = values.view(values.shape[0], grid[0], grid[1], C, p, p).permute(0, 3, 1, 4, 2, 5)
        return cut.reshape(values.shape[0], C, grid[0] * p, grid[1] * p)

    def maps(self, batch: Batch) -> list[Tensor]:
        """Features for dense use [B, D, h, w], the finest first, of chips of which all is seen."""
        raise NotImplementedError


def enough(share: Tensor) -> Tensor:
    """[B, N] bool: which tokens are valid by their valid share; the best one where none is."""
    valid = share >= VALID
    best = torch.zeros_like(valid).scatter(1, share.argmax(1, keepdim=True), True)
    return valid | best & ~valid.any(1, keepdim=True)


def grid_of(tokens: Tokens) -> list[int]:
    """How many patches are down and across, from a shape: it asks the device nothing, and torch.export follows it."""
    return list(tokens.context[GRID].shape[1:3])


def centres(grid: Sequence[int], device: torch.device) -> Tensor:
    """[1, N, 2] middles of patches, in [0, 1]."""
    axes = [(torch.arange(side, device=device) + 0.5) / side for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, 2)


def sines(grid: Sequence[int], width: int) -> Tensor:
    """[1, N, width] fixed sines and cosines of rows and columns (arXiv 2111.06377)."""
    rate = 1e4 ** (-torch.arange(width // 4) / (width // 4))
    down, over = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    parts = [f(at.flatten()[:, None] * rate) for at in (down, over) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, 1)[None]
