"""Backbones for table rows: an FT-Transformer and a residual MLP. A token is a cell, an instance is a row."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import Trunk, mean_of
from unlabeled_tabular.cells import CellEmbedding, Numbers, TableEncoder, seen_values


class FTTransformer(TableEncoder):
    """FT-Transformer (arXiv 2106.11959): each cell a token, hidden and absent cells dropped before attention.

    Args:
        facts: of the reader.
        width: D, of a token and of a row.
        depth: transformer layers.
        heads: of attention; none: one per 32 of the width.
        numbers: how numbers become vectors (arXiv 2203.05556): periodic, piecewise or linear.
        sigma: of periodic embeddings, the spread of first frequencies; the paper's most important setting.
        pool: a row is the mean of its visible cells, or a token of its own (cls).
        dropout: in the feed-forward layers and attention.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 64,
        depth: int = 3,
        heads: int | None = None,
        numbers: Numbers = "periodic",
        sigma: float = 0.25,
        pool: Literal["mean", "cls"] = "mean",
        dropout: float = 0.0,
    ):
        super().__init__(facts, width)
        heads = heads or max(1, width // 32)
        if width % heads:
            raise UserError(f"width {width} is not a multiple of {heads} heads; choose --heads that divide it")
        if pool not in ("mean", "cls"):
            raise UserError(f"pool cannot be {pool!r}; there are: mean, cls")
        self.depth = depth
        self.cells, self.embed_width = CellEmbedding(facts, width, numbers, sigma), width
        self.cls = nn.Parameter(torch.randn(width) * width**-0.5) if pool == "cls" else None
        self.trunk = Trunk(width, depth, heads, dropout=dropout)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        values, seen = seen_values(tokens, hidden)
        x, keep = self.cells(values, alter), seen
        if self.cls is not None:
            x = torch.cat([x, self.cls.expand(len(x), 1, -1)], 1)
            keep = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
        x, kept = self.trunk(x, keep, layers=layers)
        N = seen.shape[1]
        tokens_out = x[:, :N]
        rows = mean_of(tokens_out, seen) if self.cls is None else x[:, N]
        return Encoded(tokens_out, rows, torch.stack([layer[:, :N] for layer in kept]) if layers else None)


class MLP(TableEncoder):
    """A residual MLP over all cells of a row (as the ResNet of arXiv 2106.11959, with layer norm).

    Hidden and absent cells are a learned blank of their column before the first layer. A token is made of the
    row's vector and of its own cell, or blank. Layer norm, as batch statistics would differ between training
    rows with hidden cells and whole rows.

    Args:
        facts: of the reader.
        width: D, of a row and of a token.
        depth: residual blocks.
        cell: width of a cell's vector before the first layer.
        numbers: how numbers become vectors: periodic, piecewise or linear.
        sigma: of periodic embeddings, the spread of first frequencies.
        dropout: in the blocks.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 256,
        depth: int = 3,
        cell: int = 16,
        numbers: Numbers = "periodic",
        sigma: float = 0.25,
        dropout: float = 0.0,
    ):
        super().__init__(facts, width)
        self.cells, self.embed_width = CellEmbedding(facts, cell, numbers, sigma), cell
        self.blank = nn.Parameter(torch.randn(self.columns, cell) * cell**-0.5)
        self.enter = nn.Linear(self.columns * cell, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.of_row, self.of_cell = nn.Linear(width, width), nn.Linear(cell, width)
        self.leave = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: an MLP has no layers of tokens"
        values, seen = seen_values(tokens, hidden)
        cells = torch.where(seen[..., None], self.cells(values, alter), self.blank)
        x = self.enter(cells.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        rows = self.norm(x)
        return Encoded(self.leave(self.of_row(rows)[:, None] + self.of_cell(cells)), rows)
