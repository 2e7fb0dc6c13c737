"""The loss of mixed columns against a loop over cells, and its memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled_tabular.cells import CLASSES, MixedContent, tokenize
from unlabeled_tabular.encoders import FTTransformer
from unlabeled_tabular.readers import TableReader


def number(name: str, missing: float = 0.0) -> dict[str, Any]:
    grid = [float(place) for place in range(256)]
    shape = {"min": 0.0, "max": 256.0, "mean": 128.0, "std": 70.0, "center": 0.0, "scale": 1.0, "distinct": 256}
    return {"name": name, "type": "number", "missing": missing, "grid": grid, **shape}


def category(name: str, size: int) -> dict[str, Any]:
    words = [f"w{place}" for place in range(size)]
    return {
        "name": name,
        "type": "category",
        "missing": 0.0,
        "distinct": size,
        "vocabulary": words,
        "frequencies": [0.0, 0.0, *[1 / size] * size],
    }


def facts(*columns: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "numbers": "quantile", "columns": list(columns)}


def naive(reader: TableReader, prediction: Tensor, tokens: Tokens) -> Tensor:
    """Cell by cell, in plain Python."""
    out = torch.zeros(prediction.shape[:2])
    for row in range(len(prediction)):
        for place, column in enumerate(reader.facts["columns"]):
            guess = [float(x) for x in prediction[row, place]]
            value, code, missing = (float(x) for x in tokens.values[row, place])
            if "grid" in column:
                loss = 0.0 if missing else (guess[0] - value) ** 2
                if column["missing"] > 0:
                    share = 1 / (1 + math.exp(-guess[1]))
                    loss = (loss - math.log(share if missing else 1 - share) / math.log(2)) / 2
            else:
                size = len(column["vocabulary"]) + 2
                logits = guess[2 : 2 + size]
                total = sum(math.exp(logit) for logit in logits)
                loss = -math.log(math.exp(logits[int(code)]) / total) / math.log(size)
            out[row, place] = loss
    return out


def test_equals_a_loop_over_cells(reader: TableReader) -> None:
    content = MixedContent(reader.facts)
    tokens = tokenize(reader.batch(range(64)))
    assert tokens.values[:, 1, 2].any(), "the example has missing numbers"
    assert (tokens.values[:, 4, 1] == 0).any(), "and missing categories"
    prediction = torch.randn(64, 6, content.width)
    expected = naive(reader, prediction, tokens)
    torch.testing.assert_close(content.loss(prediction, tokens), expected)
    torch.testing.assert_close(content.loss(prediction.bfloat16(), tokens), expected, rtol=0.05, atol=0.1)


def test_knowing_nothing_is_about_one(reader: TableReader) -> None:
    content = MixedContent(reader.facts)
    loss = content.loss(torch.zeros(64, 6, content.width), tokenize(reader.batch(range(64))))
    torch.testing.assert_close(loss.mean(0), torch.ones(6), atol=0.06, rtol=0)


def test_slots_of_other_columns_take_no_part(reader: TableReader) -> None:
    content = MixedContent(reader.facts)
    tokens = tokenize(reader.batch(range(64)))
    prediction = torch.randn(64, 6, content.width, requires_grad=True)
    content.loss(prediction, tokens).sum().backward()
    assert prediction.grad is not None
    member = 5  # two words: four codes of the six of "city"
    assert (prediction.grad[:, member, [0, 1, 6, 7]] == 0).all()
    assert (prediction.grad[:, member, 2:6] != 0).all()
    assert (prediction.grad[:, 0, 1:] == 0).all()  # age is never missing


def test_rare_categories_share_a_class() -> None:
    columns = facts(number("n"), category("big", 10_000))
    content = MixedContent(columns)
    assert content.width == 2 + CLASSES
    codes = torch.tensor([[1], [CLASSES - 1], [CLASSES], [9_000]])
    empty = torch.zeros(4, 1)
    tokens = tokenize({"numbers": empty, "missing": empty.bool(), "codes": codes})
    prediction = torch.randn(1, 2, content.width).expand(4, -1, -1)
    loss = content.loss(prediction, tokens)[:, 1]
    assert loss[0] == loss[2] == loss[3] != loss[1]


@pytest.mark.parametrize("columns", [[number("a"), number("b")], [category("a", 3), category("b", 2)]])
def test_tables_of_one_kind(columns: list[dict[str, Any]]) -> None:
    numbers = sum("grid" in column for column in columns)
    batch = {
        "numbers": torch.randn(5, numbers),
        "missing": torch.zeros(5, numbers, dtype=torch.bool),
        "codes": torch.randint(0, 4, (5, 2 - numbers)),
    }
    encoder = FTTransformer(facts(*columns), width=8, depth=1)
    tokens = encoder.tokenize(batch)
    assert encoder.content is not None
    loss = encoder.content.loss(torch.randn(5, 2, encoder.content.width), tokens)
    assert loss.shape == (5, 2)
    assert loss.isfinite().all()
    assert encoder(tokens).instances.isfinite().all()


def test_five_hundred_columns_stay_small() -> None:
    columns = facts(*[number(f"n{n}") for n in range(250)], *[category(f"c{n}", 1000) for n in range(250)])
    assert MixedContent(columns).width == 2 + CLASSES
    encoder = FTTransformer(columns, width=16, depth=1, numbers="linear")
    decoder = encoder.predictor(258, 16, 1)
    assert sum(weight.numel() for weight in encoder.parameters()) < 5e6
    assert sum(weight.numel() for weight in decoder.parameters()) < 5e6
