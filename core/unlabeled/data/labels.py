"""Labels of samples by a table beside them, for every domain alike."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.contract import Reader
from unlabeled.data.names import label_values
from unlabeled.errors import UserError, nearest

__all__ = ["labels_of"]

KEYS = ("name", "id", "path", "file", "filename")  # columns that say whose row it is; else the first


def labels_of(reader: Reader, spec: str) -> NDArray[Any]:
    """A label a sample [n]: TABLE.csv:COLUMN by the samples' names, or what the reader knows by the name.

    A row of the table is of the sample that it names: in full, or without the folder, the suffix, or the place of a
    part in its file. Numbers are float64, NaN where there is none; else text, "" where there is none.

    Raises:
        UserError: no such table, column or label, or no row is of a sample.
    """
    told = re.fullmatch(r"(.+\.(?:csv|tsv)):([^:]+)", spec)
    if not told:
        return np.asarray(reader.labels(spec))
    path, column = Path(told[1]), told[2]
    rows, key = _table(path, column)
    values = {row[key].strip(): (row[column] or "").strip() for row in rows if row[key]}
    names = [reader.name(number) for number in range(len(reader))]
    found = [next((values[form] for form in _forms(name) if form in values), "") for name in names]
    if not any(found):
        theirs, ours = (", ".join(some[:3]) for some in ([*values], names))
        raise UserError(f"{path} labels no sample: its column {key!r} has {theirs}, and samples are {ours}")
    return label_values(found)


def _table(path: Path, column: str) -> tuple[list[dict[str, str]], str]:
    """Rows and the column of names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            rows, head = list(table), list(table.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of labels ({error})") from None
    if column not in head:
        raise UserError(f"{path} has no column {column!r}; {nearest(column, head)}")
    if not rows:
        raise UserError(f"{path} has no rows; give a header line and rows under it")
    return rows, next((name for name in KEYS if name in head), head[0])


def _forms(name: str) -> Iterator[str]:
    """What a table may call a sample, the fullest name first."""
    for known in dict.fromkeys((name, name.rpartition(" @ ")[0])):
        if known:
            path = PurePosixPath(known)
            yield from (known, path.name, str(path.with_suffix("")), path.stem, path.name.partition(".")[0])
