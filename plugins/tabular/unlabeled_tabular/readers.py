"""Reads tables of numbers, categories, booleans, dates and missing cells, in columns from file to batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.contract import Batch, Facts, Reader, Sample
from unlabeled.errors import UserError, nearest
from unlabeled_tabular import schema
from unlabeled_tabular.columns import Column, parse
from unlabeled_tabular.sources import LABEL, find

TYPES = ("number", "category", "boolean", "date")
ONE_HOT = 100  # categories of a column that the raw baseline tells apart
NAMED = 8  # columns that a notice names
READ = 8  # columns that a person is shown of a row
LONGEST = 40  # letters of a cell that are shown


class TableReader(Reader):
    """Rows of CSV and Parquet files, or of scikit-learn's built-in tables.

    A sample is {"numbers": [n_num] float32, standardised, 0 where missing; "missing": [n_num] bool;
    "codes": [n_cat] int64, 0 missing, 1 rare or unseen, 2 … vocabulary}; see `schema` for the facts.

    Args:
        source: a CSV or Parquet file, a folder or pattern of them with equal columns, or sklearn:NAME (/train, /test)
            (breast_cancer, wine, digits, iris, diabetes; their label, "target", is always left out).
        facts: a trained encoder's; the rows are read with its columns, and the fitting options are not used.
        exclude: columns that the encoder must not see, labels above all.
        columns: types where the inferred ones are wrong: number, category, boolean or date by column.
        numbers: quantile (ranks as normal scores, for heavy tails and outliers) or standard (mean 0, deviation 1).
        max_categories: the most frequent ones of a column that get a code of their own.
        delimiter: of CSV files; none: found in the header line.
        encoding: of CSV files.

    Raises:
        UserError: the source cannot be read, or has too little to learn from.
    """

    boosted = True

    def __init__(
        self,
        source: str,
        *,
        facts: Facts | None = None,
        exclude: list[str] | None = None,
        columns: dict[str, str] | None = None,
        numbers: Literal["quantile", "standard"] = "quantile",
        max_categories: int = 1000,
        delimiter: str | None = None,
        encoding: str = "utf-8",
    ):
        self.notices: list[str] = []
        self._about: dict[str, dict[str, str]] = {}
        self._source = find(source, delimiter, encoding)
        self._title = source
        self._cells: Any = None  # an Arrow table of the first few columns, once somebody wants to read rows
        if facts is None:
            self.facts, kept = self._fit(_list(exclude), columns or {}, numbers, max_categories)
        else:
            self.facts, kept = facts, self._apply(facts)
        self._store(kept)

    def _fit(
        self, exclude: Sequence[str], types: Mapping[str, str], numbers: str, max_categories: int
    ) -> tuple[Facts, dict[str, Column]]:
        self._check(exclude, types, numbers, max_categories)
        names = [name for name in self._source.names if name not in exclude]
        if self._source.builtin and LABEL in names:
            names.remove(LABEL)
            self.notices.append(f"column {LABEL!r} is the label of {self._title} and is left out")
        if not names:
            raise UserError(f"every column of {self._title} is excluded; exclude fewer")
        text = [name for name, kind in types.items() if kind == "category"]
        table, self._rows = self._source.read(names, text)
        if table.num_rows < 2:
            raise UserError(f"{self._title} has one row; statistics need at least 2, and learning hundreds")
        fitted: list[dict[str, Any]] = []
        kept: dict[str, Column] = {}
        out: dict[str, list[str]] = {}
        for name in names:
            column = parse(name, table.column(name), types.get(name))
            if column is None:
                one, remark = None, "all missing" if _no_cells(table.column(name)) else "neither numbers nor text"
            else:
                one, remark = schema.fit(column, numbers, max_categories, name in types)
            if one is None:
                out.setdefault(remark, []).append(name)
                self._about[name] = _about(name, "left out", note=remark)
                continue
            assert column is not None
            fitted.append(one)
            kept[name] = _settled(column, one)
            self._describe(one, column, remark)
        self._notice_left_out(out)
        self._need_two(kept, out)
        facts = {"version": schema.VERSION, "numbers": numbers, "columns": fitted}
        facts["columns"] = [*schema.numeric(facts), *schema.categorical(facts)]
        return facts, kept

    def _check(self, exclude: Sequence[str], types: Mapping[str, str], numbers: str, max_categories: int) -> None:
        for what, names in (("exclude", exclude), ("columns", types)):
            for name in names:
                if name not in self._source.names:
                    raise UserError(f"{what}: {self._no_column(name)}")
        for name, kind in types.items():
            if kind not in TYPES:
                raise UserError(f"columns: {name} cannot be a {kind!r}; {nearest(kind, TYPES)}")
            if name in exclude:
                raise UserError(f"column {name!r} is excluded and given a type; do one of them")
        if numbers not in ("quantile", "standard"):
            raise UserError(f"numbers cannot be {numbers!r}; there are: quantile, standard")
        if max_categories < 1:
            raise UserError(f"max_categories must be at least 1, not {max_categories}")

    def _no_column(self, name: str) -> str:
        return f"{self._title} has no column {name!r}; {nearest(name, self._source.names)}"

    def _need_two(self, kept: Mapping[str, Column], out: Mapping[str, list[str]]) -> None:
        if len(kept) < 2:
            left = f" ({'; '.join(self.notices)})" if out else ""
            have = f"only one usable column, {next(iter(kept))!r}" if kept else "no usable column"
            raise UserError(f"{self._title} has {have}{left}; columns are learnt from each other: give at least two")

    def _apply(self, facts: Facts) -> dict[str, Column]:
        columns = facts["columns"]
        for one in columns:
            if one["name"] not in self._source.names:
                missing = f"{self._title} has no column {one['name']!r}, which the encoder was trained with"
                raise UserError(f"{missing}; {nearest(one['name'], self._source.names)}")
        kept = self._read(columns)
        for one in columns:
            self._describe(one, kept[one["name"]], "")
        extra = [name for name in self._source.names if name not in kept]
        if extra:
            self.notices.append(f"not seen by the encoder: {_names(extra)}")
        return kept

    def _read(self, columns: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
        """The columns of the types that facts give them."""
        names = [one["name"] for one in columns]
        table, self._rows = self._source.read(names, [one["name"] for one in columns if one["type"] == "category"])
        kept: dict[str, Column] = {}
        for one in columns:
            name, kind = one["name"], one["type"]
            column = parse(name, table.column(name), kind)
            if column is None:
                raise UserError(f"column {name!r} of {self._title} is neither numbers nor text; write it as a {kind}")
            kept[name] = column
        return kept

    def _store(self, kept: Mapping[str, Column]) -> None:
        rows, facts = sum(self._rows), self.facts
        numeric, categorical = schema.numeric(facts), schema.categorical(facts)
        self._numbers = np.empty((rows, len(numeric)), np.float32)  # NaN where missing
        self._codes = np.empty((rows, len(categorical)), np.int32)
        for place, one in enumerate(numeric):
            numbers = kept[one["name"]].numbers
            assert numbers is not None
            self._numbers[:, place] = schema.standardise(one, facts["numbers"], numbers)
        for place, one in enumerate(categorical):
            self._codes[:, place] = schema.encode(one, kept[one["name"]])

    def _describe(self, facts: Mapping[str, Any], column: Column, remark: str) -> None:
        """Notices and the row of `summary` of a column that is used."""
        name, notes = column.name, [remark] if remark else []
        if remark:
            self.notices.append(f"column {name!r} has {facts['distinct']} categories: {remark}; see --max-categories")
        if column.infinite:
            notes.append(f"{column.infinite} infinite")
            self.notices.append(f"column {name!r} has {column.infinite} infinite cells; they count as missing")
        if column.unreadable:
            notes.append(f"{column.unreadable} unreadable")
            self.notices.append(
                f"column {name!r} has {column.unreadable} cells that are no {facts['type']}; they count as missing"
            )
        if "grid" in facts:
            values = " … ".join(_shown(facts[end], facts["type"]) for end in ("min", "max"))
            values += f", mean {_shown(facts['mean'], facts['type'])}"
        else:
            shares = zip(facts["vocabulary"], facts["frequencies"][2:], strict=True)
            values = ", ".join(f"{word[:20]} {share:.0%}" for word, share in list(shares)[:3])
        about = _about(name, facts["type"], f"{_missing(column):.1%}", str(facts["distinct"]), values, ", ".join(notes))
        self._about[name] = about

    def _notice_left_out(self, out: Mapping[str, list[str]]) -> None:
        for reason, names in out.items():
            way = " (keep with --columns NAME=category)" if "id" in reason.split() else ""
            self.notices.append(f"left out, {reason}: {_names(names)}{way}")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = np.asarray(indices, dtype=np.int64)
        numbers = torch.from_numpy(self._numbers[rows])
        missing = numbers.isnan()
        codes = torch.from_numpy(self._codes[rows].astype(np.int64))
        return {"numbers": numbers.masked_fill(missing, 0.0), "missing": missing, "codes": codes}

    def name(self, index: int) -> str:
        """file:row, rows counted from 1 under the header."""
        for path, rows in zip(self._source.files, self._rows, strict=True):
            if index < rows:
                return f"{Path(path).name}:{index + 1}"
            index -= rows
        raise IndexError(index)

    def describe(self, index: int) -> dict[str, str]:
        """Cells of the row as the file has them: up to 8 of the columns that the encoder sees, in the file's order."""
        if self._cells is None:
            seen = {column["name"] for column in self.facts["columns"]}
            names = [name for name in self._source.names if name in seen][:READ]
            self._cells = self._source.read(names)[0].select(names)
        cells = self._cells.slice(index, 1).to_pydict()
        return {name: _cell(values[0]) for name, values in cells.items()}

    def labels(self, spec: str) -> NDArray[Any]:
        """A column's values, used by the encoder or not: numbers, or text without spaces, quotes and last full stop.

        Missing labels are NaN, or "".

        Raises:
            UserError: there is no such column.
        """
        if spec not in self._source.names:
            raise UserError(self._no_column(spec))
        table, _ = self._source.read([spec])
        column = parse(spec, table.column(spec))
        if column is None:
            raise UserError(f"column {spec!r} of {self._title} is empty; name another label column")
        if column.numbers is not None:
            whole = bool(((column.numbers == np.round(column.numbers)) & (np.abs(column.numbers) < 2**53)).all())
            return column.numbers.astype(np.int64) if whole else column.numbers
        words = [word.rstrip(".").strip() for word in column.words.to_pylist()]
        return np.array([*words, ""])[column.codes]

    def sees(self, spec: str) -> bool:
        """Whether the encoder is given the column."""
        return any(column["name"] == spec for column in self.facts["columns"])

    def raw(self) -> NDArray[np.float32]:
        """Standardised numbers, their missing flags where training rows had any, and one-hot categories.

        Numbers are of mean 0 and deviation 1 whatever the encoder gets: on Adult that is the stronger baseline.
        The 100 most frequent categories of a column are told apart; its others share a feature.
        """
        parts: list[NDArray[np.float32]] = []
        numeric = schema.numeric(self.facts)
        read = self._read(numeric) if numeric else {}
        for one in numeric:
            numbers = read[one["name"]].numbers
            assert numbers is not None
            plain = {**one, "center": one["mean"], "scale": one["std"]}
            parts.append(np.nan_to_num(schema.standardise(plain, "standard", numbers))[:, None])
            if one["missing"] > 0:
                parts.append(np.isnan(numbers)[:, None].astype(np.float32))
        for place, size in enumerate(schema.sizes(self.facts)):
            width = min(size, ONE_HOT + schema.KNOWN)
            codes = self._codes[:, place]
            parts.append(np.eye(width, dtype=np.float32)[np.where(codes < width, codes, 1)])
        return np.concatenate(parts, 1)

    def summary(self) -> list[dict[str, str]]:
        return [self._about[name] for name in self._source.names if name in self._about]


def _cell(value: Any) -> str:
    """A cell for a person to read; nothing where it is missing."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    text = "" if value is None else str(value).strip()
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _list(exclude: list[str] | str | None) -> list[str]:
    names = exclude.split(",") if isinstance(exclude, str) else exclude or []
    return [name.strip() for name in names if name.strip()]


def _settled(column: Column, facts: Mapping[str, Any]) -> Column:
    """The column as its facts have it: two-valued numbers became a boolean."""
    if column.numbers is None or "grid" in facts:
        return column
    return schema.as_boolean(column, np.unique(column.numbers[np.isfinite(column.numbers)]))


def _no_cells(array: Any) -> bool:
    return bool(array.null_count == len(array)) or str(array.type) in ("string", "large_string")


def _missing(column: Column) -> float:
    if column.numbers is not None:
        return float(np.isnan(column.numbers).mean())
    assert column.codes is not None
    return float(np.mean(column.codes < 0))


def _shown(value: float, kind: str) -> str:
    return str(np.datetime64(round(value), "D")) if kind == "date" else f"{value:.5g}"


def _about(
    name: str, kind: str, missing: str = "", distinct: str = "", values: str = "", note: str = ""
) -> dict[str, str]:
    return {"column": name, "type": kind, "missing": missing, "distinct": distinct, "values": values, "note": note}


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
