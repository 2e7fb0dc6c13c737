"""Bins of cells, from the facts alone."""

from __future__ import annotations

import pytest
import torch

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled_tabular import schema
from unlabeled_tabular.encoders import FTTransformer
from unlabeled_tabular.readers import TableReader
from unlabeled_tabular.targets import Bins


def whole(reader: TableReader, encoder: FTTransformer) -> Tokens:
    batch = reader.batch(range(len(reader)))
    assert batch is not None
    return encoder.tokenize(batch)


def test_bins_of_numbers_hold_equally_many_cells(reader: TableReader) -> None:
    encoder = FTTransformer(reader.facts, width=8, depth=1)
    bins = Bins(encoder, bins=4)
    made = bins(whole(reader, encoder))
    assert made.shape[-1] == bins.width == 5
    assert (made.sum(-1) == 1).all()
    for place, column in enumerate(schema.numeric(reader.facts)):
        share = made[:, place, 1:].mean(0) / made[:, place, 1:].sum(-1).mean()
        if len(set(column["grid"])) > 0.9 * schema.GRID:  # few equal values
            assert (share - 0.25).abs().max() < 0.1, column["name"]


def test_missing_cells_and_rare_codes_have_bins_of_their_own(reader: TableReader) -> None:
    encoder = FTTransformer(reader.facts, width=8, depth=1)
    tokens = whole(reader, encoder)
    which = Bins(encoder, bins=3)(tokens).argmax(-1)
    missing = tokens.values[..., 2] > 0.5
    assert torch.equal(which == 0, missing)
    codes = tokens.values[:, len(schema.numeric(reader.facts)) :, 1].long()
    assert torch.equal(which[:, len(schema.numeric(reader.facts)) :], codes.clamp(max=3))
    with pytest.raises(UserError, match="at least 2"):
        Bins(encoder, bins=1)
