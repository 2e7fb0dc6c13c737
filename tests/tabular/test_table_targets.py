"""Bins of cells, from the facts alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from unlabeled import plugins
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.objective import Objective
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


def test_numbers_fall_between_the_quantiles_of_the_training_rows(make: Callable[..., str]) -> None:
    rows = "\n".join(f"{number},{'x' if number % 2 else 'y'}" for number in range(1000))
    trained = TableReader(make(f"n,word\n{rows}\n"))
    target = Bins(FTTransformer(trained.facts, width=8, depth=1), bins=4)
    other = make("n,word\n-50,x\n100,y\n300,z\n600,x\n900,y\n5000,x\n,y\n", "other.csv")
    tokens = whole(TableReader(other, facts=trained.facts), FTTransformer(trained.facts, width=8, depth=1))
    assert target(tokens).argmax(-1).tolist() == [[1, 2], [1, 3], [2, 1], [3, 2], [4, 3], [4, 2], [0, 3]]


def test_bins_are_the_domains_default() -> None:
    registry = plugins.load("tabular")
    assert set(registry.targets) == {"values", "checkpoint", "bins"}
    assert next(name for name in registry.targets if name not in plugins.core().targets) == "bins"


@pytest.mark.parametrize("bins", [3, 7])
def test_a_method_takes_bins_by_name_with_options(reader: TableReader, bins: int) -> None:
    registry = plugins.load("tabular")
    encoder = FTTransformer(reader.facts, width=8, depth=1)
    target = {"name": "bins", "bins": bins}
    made = Objective(encoder, registry.methods["maskfeat"].with_options({"rebuild.target": target}), registry)
    assert made.terms["rebuild"].decoder.out_features == bins + 1
    assert not [name for name in made.state_dict() if "edges" in name], "the facts have them"


def test_bins_are_for_tables() -> None:
    with pytest.raises(UserError, match="made for table encoders, not Encoder"):
        Bins(Encoder())
