"""A column as read: numbers, or codes into distinct words; no Python object per cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled_tabular.sources import MISSING

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]

Type = Literal["number", "date", "category", "boolean"]
DAY = 86_400e6  # microseconds


@dataclass(slots=True)
class Column:
    """One column of rows: `numbers`, or `codes` and `words`, never both."""

    name: str
    type: Type
    numbers: Floats | None = None  # [rows], NaN where missing; dates as days since 1970
    codes: Codes | None = None  # [rows] place in words, -1 where missing
    words: Any = None  # Arrow strings, distinct
    infinite: int = 0  # cells that were infinite; they count as missing
    unreadable: int = 0  # cells that are no number (no date) though the column is told to be one


def parse(name: str, array: Any, wanted: str | None = None) -> Column | None:
    """A column of an Arrow chunked array, of the wanted type or the type its cells show.

    Text whose every word is a number or an ISO date is that, however many spaces stand around it.

    Returns:
        None where there is nothing but missing cells, or the cells are lists, structures or bytes.
    """
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return None
    if pa.types.is_null(kind):
        array, kind = array.cast(pa.string()), pa.string()
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    boolean = pa.types.is_boolean(kind)
    if not (text or boolean or wanted in ("category", "boolean")):
        date = wanted == "date" or pa.types.is_date(kind) or pa.types.is_timestamp(kind)
        return _finite(Column(name, "date" if date else "number", numbers=_numbers(array)))
    column = _words(name, array, "boolean" if boolean or wanted == "boolean" else "category")
    if len(column.words) == 0 and wanted is None:
        return None
    if wanted in ("category", "boolean") or (boolean and wanted is None):
        return column
    return _read_numbers(column, wanted)


def _numbers(array: Any) -> Floats:
    """[rows] float64 of a numeric, decimal or temporal array."""
    import pyarrow as pa

    kind, per = array.type, 1.0
    if pa.types.is_date(kind):
        array = array.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(array.type):
        array, per = array.cast(pa.timestamp("us", array.type.tz), safe=False), DAY
    elif pa.types.is_duration(kind):
        array, per = array.cast(pa.duration("us"), safe=False), DAY
    elif pa.types.is_time(kind):
        array, per = array.cast(pa.time64("us"), safe=False), 1e6
    if per != 1.0:
        array = array.cast(pa.int64())
    numbers = array.cast(pa.float64(), safe=False).to_numpy()
    return np.array(numbers, dtype=np.float64) / per  # a copy: Arrow's memory is read-only and shared


def _finite(column: Column) -> Column:
    assert column.numbers is not None
    infinite = np.isinf(column.numbers)
    column.infinite = int(infinite.sum())
    column.numbers[infinite] = np.nan
    return column


def _words(name: str, array: Any, kind: Type) -> Column:
    """Distinct words without stray spaces, quotes and missing markers, and the codes of the rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = array.cast(pa.large_string()).combine_chunks()
    encoded = flat.dictionary_encode()
    words = pc.utf8_trim_whitespace(encoded.dictionary)
    for quoted in (r'^"(.*)"$', r"^'(.*)'$"):
        words = pc.utf8_trim_whitespace(pc.replace_substring_regex(words, quoted, r"\1"))
    if kind == "boolean":  # the same word for True and true, 1 and 1.0, whatever file it comes from
        lower = pc.utf8_lower(words)
        truth = pc.is_in(lower, pa.array(["true", "false"], pa.large_string()))
        words = pc.replace_substring_regex(pc.if_else(truth, lower, words), r"^(-?\d+)\.0+$", r"\1")
    missing = pc.is_in(words, pa.array(MISSING, pa.large_string()))
    again = pc.if_else(missing, None, words).dictionary_encode()
    place = np.append(again.indices.fill_null(-1).to_numpy(zero_copy_only=False), -1)
    codes = place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)].astype(np.int32)
    return Column(name, kind, codes=codes, words=again.dictionary)


def _read_numbers(column: Column, wanted: str | None) -> Column:
    """The column as numbers or dates, where its words are such or it is told to be one."""
    import pyarrow as pa

    kinds: dict[Type, list[Any]] = {
        "number": [pa.float64()],
        "date": [pa.timestamp("us"), pa.timestamp("us", "UTC")],
    }
    for kind, targets in kinds.items():
        for target in targets if wanted in (None, kind) else ():
            try:
                values = _numbers(column.words.cast(target))
            except pa.ArrowInvalid:
                continue
            return _finite(_as_numbers(column, kind, values))
    if wanted is None:
        return column
    reader = _days if wanted == "date" else _float
    values = np.array([reader(word) for word in column.words.to_pylist()], dtype=np.float64)
    read = _as_numbers(column, "date" if wanted == "date" else "number", values)
    assert read.numbers is not None
    assert column.codes is not None
    read.unreadable = int((np.isnan(read.numbers) & (column.codes >= 0)).sum())
    return _finite(read)


def _as_numbers(column: Column, kind: Type, values: Floats) -> Column:
    return Column(column.name, kind, numbers=np.append(values, np.nan)[column.codes])


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _days(word: str) -> float:
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        return math.nan
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() / 86_400
