"""Views: how many cells change, to what, and that a row depends on nothing but its key."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.contract import Batch, Kind
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_tabular import schema
from unlabeled_tabular.readers import TableReader
from unlabeled_tabular.views import VIEWS, ColumnSubset, Marginals, Scarf, SwapNoise

ROWS = 64
KINDS: tuple[Kind, ...] = ("plain", "global", "local", "whole")


def keys(count: int = ROWS) -> torch.Tensor:
    return sample_keys(0, 0, torch.arange(count))


def part(batch: Batch, rows: Any) -> Batch:
    return {name: value[rows] for name, value in batch.items()}


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def changed(one: Batch, other: Batch) -> torch.Tensor:
    """[B, N] bool: cells that differ, a missing number being a value of its own."""
    numbers = (one["numbers"] != other["numbers"]) | (one["missing"] != other["missing"])
    return torch.cat([numbers, one["codes"] != other["codes"]], 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VIEWS)
def test_a_row_depends_on_its_key_alone(reader: TableReader, name: str, kind: Kind) -> None:
    view, batch = VIEWS[name](reader.facts), reader.batch(range(ROWS))
    before = {key: value.clone() for key, value in batch.items()}
    whole = view.batch(batch, kind, Draws(keys()))
    assert same(batch, before)
    shuffled = torch.randperm(ROWS)
    assert same(view.batch(part(batch, shuffled), kind, Draws(keys()[shuffled])), part(whole, shuffled))
    few = slice(7, 20)
    assert same(view.batch(part(batch, few), kind, Draws(keys()[few])), part(whole, few))
    again = pickle.loads(pickle.dumps(view))
    assert same(again.batch(batch, kind, Draws(keys())), whole)


@pytest.mark.parametrize("name", VIEWS)
def test_plain_and_whole_views_are_the_data(reader: TableReader, name: str) -> None:
    view, batch = VIEWS[name](reader.facts), reader.batch(range(ROWS))
    for kind in ("plain", "whole"):
        assert same(view.batch(batch, kind, Draws(keys())), batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VIEWS)
def test_every_other_column_is_mirrored_or_those_between_or_both(reader: TableReader, name: str) -> None:
    view, batch = VIEWS[name](reader.facts), reader.batch(range(ROWS))
    n_num, sizes = len(schema.numeric(reader.facts)), schema.sizes(reader.facts)
    which = torch.arange(ROWS) % 4
    made = view.transform(batch, which)
    for row in range(ROWS):
        for column in range(n_num + len(sizes)):
            mirrored = int(which[row]) in ((2, 3) if column % 2 else (1, 3))
            if column < n_num:
                before, after = (one["numbers"][row, column].item() for one in (batch, made))
                assert after == (-before if mirrored else before)
            else:
                before, after = (int(one["codes"][row, column - n_num]) for one in (batch, made))
                known = range(2, sizes[column - n_num])
                assert after == (known[-1 - known.index(before)] if mirrored and before in known else before)
    assert torch.equal(made["missing"], batch["missing"])
    assert same(view.transform(made, which), batch), "mirrored twice is as it was"


def test_scarf_replaces_a_fixed_count(reader: TableReader) -> None:
    batch, most = reader.batch(range(ROWS)), 4  # of 6 columns
    new = Scarf(reader.facts, share=0.6).batch(batch, "global", Draws(keys()))
    counts = changed(batch, new).sum(1)
    assert counts.max() == most  # a draw may by chance be the old value
    assert counts.float().mean() > most * 0.75
    assert changed(batch, new).any(0).all()


def test_local_scarf_views_are_a_few_true_cells(reader: TableReader) -> None:
    batch = reader.batch(range(ROWS))
    new = Scarf(reader.facts, local=0.4).batch(batch, "local", Draws(keys()))
    assert not changed(batch, new).any()
    assert (new["kept"].sum(1) == 2).all()


def test_scarf_of_nothing_and_of_everything(reader: TableReader) -> None:
    batch = reader.batch(range(ROWS))
    assert not changed(batch, Scarf(reader.facts, share=0.0).batch(batch, "global", Draws(keys()))).any()
    drawn = Scarf(reader.facts, share=1.0).batch(batch, "global", Draws(keys()))
    other = Scarf(reader.facts, share=1.0).batch(part(batch, [0] * ROWS), "global", Draws(keys()))
    assert same(drawn, other)  # nothing is left of the row


def test_swap_noise_replaces_at_its_rate(reader: TableReader) -> None:
    rows = torch.arange(4000) % ROWS
    batch = reader.batch(rows.tolist())
    rates = [
        changed(batch, SwapNoise(reader.facts, probability=0.3).batch(batch, kind, Draws(keys(4000)))).float().mean(0)
        for kind in ("global", "local")
    ]
    age, since = 0, 2  # many values, so that a draw is rarely the old one
    for rate, expected in zip(rates, (0.3, 0.65), strict=True):
        assert rate[age] == pytest.approx(expected, abs=0.04)
        assert rate[since] == pytest.approx(expected, abs=0.04)


def test_draws_have_the_marginals_of_the_data(reader: TableReader) -> None:
    count = 20_000
    new = Marginals(reader.facts).draw(Draws(keys(count)), torch.device("cpu"))
    for place, one in enumerate(schema.categorical(reader.facts)):
        shares = torch.bincount(new["codes"][:, place], minlength=len(one["frequencies"])) / count
        torch.testing.assert_close(shares, torch.tensor(one["frequencies"]), atol=0.015, rtol=0)
    for place, one in enumerate(schema.numeric(reader.facts)):
        gaps = new["missing"][:, place]
        assert gaps.float().mean() == pytest.approx(one["missing"], abs=0.01)
        assert (new["numbers"][gaps, place] == 0).all()
        real = schema.standardise(one, reader.facts["numbers"], np.unique(one["grid"]))
        assert set(new["numbers"][~gaps, place].tolist()) <= set(real.tolist())
        assert new["numbers"][~gaps, place].mean().abs() < 0.05
    pairs = np.corrcoef(torch.cat([new["numbers"], new["codes"]], 1).T)
    assert np.abs(pairs - np.eye(6)).max() < 0.04  # columns are drawn independently


@pytest.mark.parametrize(("kind", "kept"), [("global", 4), ("local", 2)])
def test_column_subsets_keep_a_fixed_count(reader: TableReader, kind: Kind, kept: int) -> None:
    batch = reader.batch(range(ROWS))
    new = ColumnSubset(reader.facts, keep=0.75).batch(batch, kind, Draws(keys()))
    assert (new["kept"].sum(1) == kept).all()
    assert not changed(batch, new).any()
    assert (new["kept"].float().mean(0) > 0.1).all()
    least = ColumnSubset(reader.facts, keep=0.0, local=0.0).batch(batch, kind, Draws(keys()))
    assert (least["kept"].sum(1) == 1).all()


@pytest.mark.parametrize(("view", "option"), [(Scarf, "share"), (SwapNoise, "probability"), (ColumnSubset, "keep")])
def test_shares_are_shares(reader: TableReader, view: Any, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is a share: between 0 and 1, not 1.5"):
        view(reader.facts, **{option: 1.5})
