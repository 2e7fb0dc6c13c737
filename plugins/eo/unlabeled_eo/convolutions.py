"""timm's convolutional networks on chips: what may not be seen is blank pixels, and every stage is part of a token."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoded, Facts, LibraryModel, Tokens
from unlabeled.errors import UserError
from unlabeled_eo.patches import ChipEncoder, grid_of
from unlabeled_eo.vit import made, of_timm

LEAST = 32  # pixels a side, of which the last stage makes one


class StagedEncoder(ChipEncoder):
    """A network of timm with stages over chips in which hidden patches are blank, before anything is mixed.

    Its mixing point are the pixels themselves: patches are exchanged, or mixed with those of other chips, as images. A
    token is the sum of what all stages, resampled to the grid of patches and projected, make of its place; an
    instance is the mean of the last stage, normed as the network does it. Stages reach across patches, so that hiding
    saves no time.
    """

    backbone = "net"

    def __init__(self, facts: Facts, model: str, patch: int, dropout: float, **options: Any):
        net, arguments = made(model, in_chans=len(facts["channels"]), drop_path_rate=dropout, **options)
        if not hasattr(net, "forward_intermediates"):
            raise UserError(f"timm's {model!r} does not show its stages; take a resnet or a convnext")
        widths = [info["num_chs"] for info in net.feature_info]
        self._take = list(range(len(widths)))[-4:]
        super().__init__(facts, widths[-1], patch)
        self.map_widths, self.embed_width = [widths[at] for at in self._take], self.value_width
        self.net, self._arguments = net, arguments
        self.project = nn.ModuleList(nn.Linear(width, self.width) for width in self.map_widths)
        self.norm = nn.LayerNorm(self.width)

    def library_model(self) -> LibraryModel:
        return of_timm(self.net, self._arguments)

    def embed(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: stages differ in width, so that they are no layers of tokens"
        seen = tokens.valid if hidden is None else tokens.valid & ~hidden
        grid = grid_of(tokens)
        values = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        stages = self._stages(self.image(torch.where(seen[..., None], values, 0), grid))
        parts = [project(_on_grid(stage, grid)) for project, stage in zip(self.project, stages, strict=True)]
        return Encoded(self.norm(torch.stack(parts).sum(0)), self.net.forward_head(stages[-1]))

    def _stages(self, image: Tensor) -> list[Tensor]:
        short = [max(LEAST - side, 0) for side in image.shape[2:]]
        image = F.pad(image, (0, short[1], 0, short[0]))
        found: list[Tensor] = self.net.forward_intermediates(image, indices=self._take, intermediates_only=True)
        return found

    def maps(self, batch: Batch) -> list[Tensor]:
        """The last four stages, the finest first."""
        tokens = self.tokenize(batch)
        return self._stages(self.image(tokens.values, grid_of(tokens)))


def _on_grid(x: Tensor, grid: list[int]) -> Tensor:
    """A map [B, D, h, w] as tokens [B, N, D]: means of what is finer than the grid, else interpolated."""
    if min(x.shape[2:]) >= max(grid):
        return F.adaptive_avg_pool2d(x, (grid[0], grid[1])).flatten(2).transpose(1, 2)
    return F.interpolate(x, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


class ResNet(StagedEncoder):
    """A ResNet of timm (arXiv 1512.03385).

    Args:
        facts: of the reader.
        model: its name in timm, for `--init timm:NAME`.
        patch: pixels a side of what is hidden.
        dropout: of whole residual branches (drop path).
    """

    def __init__(self, facts: Facts, *, model: str = "resnet18", patch: int = 8, dropout: float = 0.0):
        # With timm's zeros a block begins as its shortcut, which leaves out three of four pixels at every stride.
        super().__init__(facts, model, patch, dropout, zero_init_last=False)


class ConvNeXt(StagedEncoder):
    """A ConvNeXt of timm (arXiv 2201.03545, 2301.00808).

    Args:
        facts: of the reader.
        model: its name in timm, for `--init timm:NAME`.
        patch: pixels a side of what is hidden.
        dropout: of whole residual branches (drop path).
    """

    def __init__(self, facts: Facts, *, model: str = "convnext_atto", patch: int = 8, dropout: float = 0.0):
        super().__init__(facts, model, patch, dropout)
