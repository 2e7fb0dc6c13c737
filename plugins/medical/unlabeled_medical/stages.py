"""Networks over whole crops: what may not be seen is blank voxels, and every stage takes part in a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, LibraryModel, Tokens
from unlabeled_medical.patches import VolumeEncoder, grid_of


class BlankingEncoder(VolumeEncoder):
    """Hidden patches are blank voxels, before anything is mixed, so that hiding saves no time.

    Its mixing point are the voxels themselves: patches are exchanged, or mixed with those of other volumes, as images.

    Args:
        facts: of the reader.
        width: of a token.
        patch: voxels a side of what is hidden.
    """

    def __init__(self, facts: Facts, width: int, patch: int):
        super().__init__(facts, width, patch)
        self.embed_width = self.value_width

    def embed(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def shown(self, tokens: Tokens, hidden: Tensor | None, alter: Alteration | None) -> Tensor:
        """The crop [B, C, D, H, W] as it was altered, blank where a patch is hidden or not valid."""
        seen = tokens.valid if hidden is None else tokens.valid & ~hidden
        values = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        return self.image(torch.where(seen[..., None], values, 0), grid_of(tokens))


class StagedEncoder(BlankingEncoder):
    """A network of stages, each of which reaches across patches.

    A token is the sum of what all stages, resampled to the grid of patches and projected, make of its place; an
    instance is the mean of the last stage.

    Args:
        facts: of the reader.
        widths: channels of each stage, the finest first.
        patch: voxels a side of what is hidden.
    """

    def __init__(self, facts: Facts, widths: Sequence[int], patch: int):
        super().__init__(facts, widths[-1], patch)
        self.map_widths = list(widths)
        self.project = nn.ModuleList(nn.Linear(width, self.width) for width in widths)
        self.norm = nn.LayerNorm(self.width)

    def of_monai(self, call: str, arguments: dict[str, Any]) -> LibraryModel:
        """For `--to backbone`, of an encoder whose `net` is MONAI's."""
        says = "intensities as the reader's facts say, [B, C, D, H, W]"
        return LibraryModel("monai", call, arguments, self.get_submodule("net").state_dict(), says)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: stages differ in width, so that they are no layers of tokens"
        grid = grid_of(tokens)
        stages = self.maps(self.shown(tokens, hidden, alter))
        parts = [project(_on_grid(stage, grid)) for project, stage in zip(self.project, stages, strict=True)]
        return Encoded(self.norm(torch.stack(parts).sum(0)), stages[-1].mean((2, 3, 4)))


def _on_grid(x: Tensor, grid: list[int]) -> Tensor:
    """A map [B, D, d, h, w] as tokens [B, N, D]: means of what is finer than the grid, else interpolated."""
    if min(x.shape[2:]) >= max(grid):
        return F.adaptive_avg_pool3d(x, (grid[0], grid[1], grid[2])).flatten(2).transpose(1, 2)
    return F.interpolate(x, grid, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
