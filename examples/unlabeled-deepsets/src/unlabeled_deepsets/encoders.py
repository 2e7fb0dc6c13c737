"""A row as the set of its cells."""

import torch
from torch import nn

from unlabeled.contract import Encoded
from unlabeled.layers import mean_of
from unlabeled_tabular.cells import CellEmbedding, TableEncoder, seen_values


def mlp(enter, width):
    """Two layers."""
    return nn.Sequential(nn.Linear(enter, width), nn.ReLU(), nn.Linear(width, width))


class DeepSets(TableEncoder):
    """Deep Sets (arXiv 1703.06114): one network for every cell, another for the mean of those that may be seen."""

    def __init__(self, facts, *, width: int = 64, cell: int = 32):
        super().__init__(facts, width)
        self.cells, self.embed_width = CellEmbedding(facts, cell), cell
        self.of_cell, self.of_row, self.of_place = mlp(cell, width), mlp(width, width), nn.Linear(cell, width)

    def forward(self, tokens, hidden=None, layers=0, alter=None):
        values, seen = seen_values(tokens, hidden)
        cells = self.of_cell(self.cells(values, alter))
        rows = self.of_row(mean_of(cells, seen))
        own = torch.where(seen[..., None], cells, self.of_place(self.cells.column))  # of a hidden cell: its column
        return Encoded(rows[:, None] + own, rows)
