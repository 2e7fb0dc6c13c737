"""What hidden cells can be predicted as, beside their own content."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_tabular import schema
from unlabeled_tabular.cells import CODE, MISSING, NUMBER, TableEncoder


class Bins(nn.Module):
    """One-hot bins: of equal counts for numbers, of single codes for categories (arXiv 2405.07414).

    Bin 0 is a missing cell. Codes beyond the last bin, the rarest ones, share it. The paper compares bins by their
    number (BinRecon) or by cross-entropy (BinXent); one-hot ones suit any term that compares vectors.

    Args:
        encoder: of rows; its facts have the edges.
        bins: of each column, beside that of missing cells.
    """

    edges: Tensor  # [numbers, bins - 1], in standardised units

    def __init__(self, encoder: Encoder, *, bins: int = 10):
        super().__init__()
        if bins < 2:
            raise UserError(f"bins must be at least 2, not {bins}")
        if not isinstance(encoder, TableEncoder):
            raise UserError(f"target 'bins' is made for table encoders, not {type(encoder).__name__}")
        facts = encoder.facts
        self.width, self.n_num = bins + 1, len(schema.numeric(facts))
        ranks = np.arange(1, bins) * schema.GRID // bins
        edges = [
            schema.standardise(one, facts["numbers"], np.array(one["grid"])[ranks]) for one in schema.numeric(facts)
        ]
        made = torch.from_numpy(np.array(edges, dtype=np.float32).reshape(self.n_num, bins - 1))
        self.register_buffer("edges", made, persistent=False)

    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, 3] -> [B, N, bins + 1]
        numbers, codes = tokens.values[:, : self.n_num], tokens.values[:, self.n_num :, CODE].long()
        above = (numbers[..., NUMBER, None] >= self.edges).sum(-1) + 1
        above = torch.where(numbers[..., MISSING] > 0.5, 0, above)
        number = torch.cat([above, codes.clamp(0, self.width - 1)], 1)
        return F.one_hot(number, self.width).float()
