"""What is fitted on the training rows and kept with the encoder: columns, vocabularies, statistics.

Facts are {"version", "numbers": "quantile" or "standard", "columns": [...]}, numbers and dates before categories
and booleans, each kind in the file's order; that is the order of tokens. A number has its quantile grid (256 real
values at even ranks, so that atoms keep their mass), range, mean, deviation, and the shift and scale of its
standardised form; a category its vocabulary, most frequent first, and the frequencies of the codes
0 missing, 1 rare or unseen, 2 … vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.contract import Facts
from unlabeled_tabular.columns import Codes, Column, Floats

VERSION = 1
GRID = 256
KNOWN = 2  # the first code of a vocabulary
CLIP = 10.0  # standardised numbers are clipped here; only heavy tails and unseen ranges get so far
TAIL = 1e-3  # ranks are clipped here, so that normal scores stay within ±3.1
ID_NAME = re.compile(r"(id|uuid|guid|index|row[ _-]?(id|number|index)?|unnamed: ?\d+|.+[ _-](id|uuid|guid))?", re.I)
ID_CAMEL = re.compile(r".*[a-z](Id|ID|Uuid|UUID)")

ColumnFacts = Mapping[str, Any]


def numeric(facts: Facts) -> list[ColumnFacts]:
    """The columns of numbers and dates, in token order."""
    return [column for column in facts["columns"] if column["type"] in ("number", "date")]


def categorical(facts: Facts) -> list[ColumnFacts]:
    """The columns of categories and booleans, in token order after the numeric ones."""
    return [column for column in facts["columns"] if column["type"] in ("category", "boolean")]


def sizes(facts: Facts) -> list[int]:
    """How many codes each categorical column has: missing, rare or unseen, and its vocabulary."""
    return [len(column["vocabulary"]) + KNOWN for column in categorical(facts)]


def fit(column: Column, numbers: str, max_categories: int, told: bool) -> tuple[dict[str, Any] | None, str]:
    """The facts of a column, and a remark; None: the column says nothing and the remark says why.

    Whole numbers stay numbers however few they are (their order means something), but for two-valued ones, which
    are booleans, as is one value beside missing cells. `told`: the user named the type, so nothing is guessed.
    """
    if not told and (ID_NAME.fullmatch(column.name) or ID_CAMEL.fullmatch(column.name)):
        return None, "named like an id"
    if column.numbers is not None:
        ordered = np.sort(column.numbers)[: int(np.isfinite(column.numbers).sum())]  # NaN sort last
        values = np.unique(ordered)
        if len(values) and not (told and len(values) > 1) and _two_valued(values, column):
            column = as_boolean(column, values)
        elif len(values) > 1:
            return _fit_numbers(column, ordered, len(values), numbers), ""
        else:
            return None, "constant" if len(values) else "all missing"
    return _fit_words(column, max_categories, told)


def _two_valued(values: Floats, column: Column) -> bool:
    assert column.numbers is not None
    if column.type == "date":
        return False
    one = len(values) == 1 and bool(np.isnan(column.numbers).any())
    return one or (len(values) == 2 and bool((values == np.round(values)).all()))


def as_boolean(column: Column, values: Floats) -> Column:
    """One or two numbers as the words of a boolean."""
    import pyarrow as pa

    assert column.numbers is not None
    codes = np.searchsorted(values, column.numbers).astype(np.int32)
    codes[np.isnan(column.numbers)] = -1
    words = pa.array([str(int(value)) if value == int(value) else str(value) for value in values], pa.large_string())
    return Column(column.name, "boolean", codes=codes, words=words, infinite=column.infinite)


def _fit_numbers(column: Column, ordered: Floats, distinct: int, numbers: str) -> dict[str, Any]:
    assert column.numbers is not None
    largest = float(np.abs(ordered[[0, -1]]).max()) or 1.0  # squares of huge numbers overflow
    scaled = ordered / largest
    places = ((np.arange(GRID) + 0.5) / GRID * len(ordered)).astype(np.int64)
    facts: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "missing": 1 - len(ordered) / len(column.numbers),
        "distinct": distinct,
        "grid": ordered[places].tolist(),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "mean": float(scaled.mean()) * largest,
        "std": float(scaled.std()) * largest,
    }
    facts["center"], facts["scale"] = facts["mean"], facts["std"]
    if numbers == "quantile":
        scores = _normal_scores(facts, ordered)
        facts["center"], facts["scale"] = float(scores.mean()), max(float(scores.std()), 1e-6)
    return facts


def _normal_scores(facts: ColumnFacts, values: Floats) -> Floats:
    """Ranks among the training rows as quantiles of the normal distribution; an atom gets its middle rank."""
    import torch

    knots = np.array([facts["min"], *facts["grid"], facts["max"]])
    ranks = np.concatenate([[0.0], (np.arange(GRID) + 0.5) / GRID, [1.0]])
    upper = np.interp(values, knots, ranks)
    lower = 1 - np.interp(-values, -knots[::-1], (1 - ranks)[::-1])
    middle = ((upper + lower) / 2).clip(TAIL, 1 - TAIL)
    scores: Floats = torch.special.ndtri(torch.from_numpy(middle)).numpy()
    return scores


def standardise(facts: ColumnFacts, numbers: str, values: Floats) -> NDArray[np.float32]:
    """Numbers in the file's units as float32 of mean 0 and deviation 1 on the training rows; NaN stays NaN."""
    scores = _normal_scores(facts, values) if numbers == "quantile" else values
    with np.errstate(over="ignore"):
        scaled = (scores - facts["center"]) / facts["scale"]
    clipped: NDArray[np.float32] = scaled.clip(-CLIP, CLIP).astype(np.float32)
    return clipped


def _fit_words(column: Column, max_categories: int, told: bool) -> tuple[dict[str, Any] | None, str]:
    assert column.codes is not None
    rows = len(column.codes)
    counts = np.bincount(column.codes + 1, minlength=len(column.words) + 1)
    missing, counts = int(counts[0]), counts[1:]
    present, distinct = rows - missing, int((counts > 0).sum())
    if distinct == 0:
        return None, "all missing"
    if distinct == 1 and not missing:
        return None, "constant"
    if not told and present > 20 and distinct >= 0.95 * present:
        return None, "text that is different in (nearly) every row, like an id"
    words = np.array(column.words.to_pylist(), dtype=object)
    order = np.lexsort((words.astype(str), -counts))[: min(distinct, max_categories)]
    rare = present - int(counts[order].sum())
    facts = {
        "name": column.name,
        "type": column.type,
        "missing": missing / rows,
        "distinct": distinct,
        "vocabulary": words[order].tolist(),
        "frequencies": [count / rows for count in (missing, rare, *counts[order].tolist())],
    }
    return facts, f"{distinct - max_categories} rare ones are one code" if distinct > max_categories else ""


def encode(facts: ColumnFacts, column: Column) -> Codes:
    """Codes of a column's words in the vocabulary: 0 missing, 1 rare or unseen, 2 … known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    assert column.codes is not None
    known = pa.array(facts["vocabulary"], pa.large_string())
    place = pc.index_in(column.words, known).fill_null(-1).to_numpy(zero_copy_only=False) + KNOWN
    return np.append(place, 0).astype(np.int32)[column.codes]
