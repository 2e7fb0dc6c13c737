"""What type a column is taken for, and which columns are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unlabeled_tabular.readers import TableReader

Make = Callable[..., str]


def column(reader: TableReader, name: str) -> dict[str, Any]:
    return next(one for one in reader.facts["columns"] if one["name"] == name)


def read(make: Make, cells: list[str], other: bool = True, **options: Any) -> TableReader:
    """A table with one column of the cells, quoted where they have commas, and one of plain numbers."""
    lines = ["x,other"] + [f"{cell},{number % 7}.5" for number, cell in enumerate(cells)]
    return TableReader(make("\n".join(lines) + "\n"), **options)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", "3", "7"], "number"),
        (["1.5", "-2e3", "", "4"], "number"),
        ([" 1", "2 ", "   ?", "4"], "number"),  # too many spaces for the fast path
        (["0", "1", "1", "0"], "boolean"),
        (["0", "1", "", "0"], "boolean"),
        (["1", "2", "2", "1"], "boolean"),
        (["1", "", "1", ""], "boolean"),  # there or not
        (["0.5", "1.5", "1.5", "0.5"], "number"),
        (["true", "False", "TRUE", "?"], "boolean"),
        (["a", "b", "a", "NA"], "category"),
        (["a", "a", " ?", "a"], "category"),
        (["2020-01-01", "2021-05-06", "", "2020-02-02"], "date"),
        (["2020-01-01T10:00:00Z", "2021-05-06T11:00:00Z", "2020-01-01T10:00:00Z", "null"], "date"),
        ([" 2020-01-01", "2021-05-06  ", "  2020-02-02", "None"], "date"),
        (["1", "2", "x", "4"], "category"),
    ],
)
def test_types_are_inferred(make: Make, cells: list[str], kind: str) -> None:
    reader = read(make, cells)
    facts = column(reader, "x")
    assert facts["type"] == kind
    gaps = sum(cell.strip() in ("", "?", "NA", "null", "None") for cell in cells)
    assert facts["missing"] == pytest.approx(gaps / len(cells))


def test_spaces_quotes_and_markers_make_no_categories(make: Make) -> None:
    reader = read(make, [" a", "a ", '"a"', "' a'", " ?", "NA", "b"])
    assert column(reader, "x")["vocabulary"] == ["a", "b"]
    assert column(reader, "x")["frequencies"] == pytest.approx([2 / 7, 0, 4 / 7, 1 / 7])


def test_dates_are_days(make: Make) -> None:
    facts = column(read(make, ["1970-01-02", "1970-01-03T12:00:00", "1970-01-02"]), "x")
    assert (facts["min"], facts["max"]) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("cells", "wanted", "kind"),
    [
        (["01", "02", "10"], "category", "category"),
        (["1", "2", "x"], "number", "number"),
        (["1", "0", "1"], "number", "number"),
        (["2020-01-01", "soon", "2021-01-01T00:00:00+00:00"], "date", "date"),
        (["2020-01-01", "2021-01-01", "2020-01-01"], "category", "category"),
    ],
)
def test_columns_override(make: Make, cells: list[str], wanted: str, kind: str) -> None:
    facts = column(read(make, cells, columns={"x": wanted}), "x")
    assert facts["type"] == kind
    if kind == "category":
        assert sorted(facts["vocabulary"]) == sorted(set(cells))


def test_cells_that_are_no_number_are_counted(make: Make) -> None:
    reader = read(make, ["1", "2", "x", "y", ""], columns={"x": "number"})
    assert "column 'x' has 2 cells that are no number; they count as missing" in reader.notices
    assert column(reader, "x")["missing"] == pytest.approx(3 / 5)


def test_infinities_are_missing_and_counted(make: Make) -> None:
    reader = read(make, ["1", "inf", "-Infinity", "4", "1e400", "5"])
    assert "column 'x' has 3 infinite cells; they count as missing" in reader.notices
    assert reader.batch(range(6))["missing"][:, 0].tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("name", ["id", "ID", "customer_id", "Customer ID", "userId", "uuid", "Unnamed: 0", ""])
def test_columns_named_like_an_id_are_left_out(make: Make, name: str) -> None:
    text = f"{name},a,b\n" + "".join(f"{row % 5},{row % 3},{row % 4}\n" for row in range(12))
    reader = TableReader(make(text))
    assert [one["name"] for one in reader.facts["columns"]] == ["a", "b"]
    assert any(notice.startswith(f"left out, named like an id: {name!r}") for notice in reader.notices)


@pytest.mark.parametrize("name", ["paid", "humid", "grid", "idle", "width"])
def test_columns_that_only_end_like_one_are_kept(make: Make, name: str) -> None:
    reader = TableReader(make(f"{name},a\n" + "".join(f"{row % 5},{row % 3}\n" for row in range(12))))
    assert len(reader.facts["columns"]) == 2


def test_text_that_differs_in_every_row_is_left_out_unless_told(make: Make) -> None:
    cells = [f"Mr {number}" for number in range(30)]
    rows = ["x,a,b", *(f"{cell},{n % 3},{n % 4}" for n, cell in enumerate(cells))]
    path = make("\n".join(rows))
    reader = TableReader(path)
    assert [one["name"] for one in reader.facts["columns"]] == ["a", "b"]
    assert "like an id: 'x' (keep with --columns NAME=category)" in reader.notices[0]
    assert len(column(TableReader(path, columns={"x": "category"}), "x")["vocabulary"]) == 30


def test_constant_and_empty_columns_are_left_out_in_one_notice_each(make: Make) -> None:
    text = "a,b,same,word,none,gaps\n" + "".join(f"{n},{n % 3},5,w,,?\n" for n in range(9))
    reader = TableReader(make(text))
    assert [one["name"] for one in reader.facts["columns"]] == ["a", "b"]
    assert reader.notices == ["left out, constant: 'same', 'word'", "left out, all missing: 'none', 'gaps'"]
    assert {row["column"]: row["note"] for row in reader.summary()}["gaps"] == "all missing"


def test_ten_thousand_categories_are_capped_with_a_notice(make: Make) -> None:
    text = "word,a\n" + "".join(f"w{n % 10_000},{n % 7}\n" for n in range(20_500))
    reader = TableReader(make(text))
    facts = column(reader, "word")
    assert (facts["distinct"], len(facts["vocabulary"])) == (10_000, 1000)
    assert sum(facts["frequencies"]) == pytest.approx(1)
    assert reader.notices == ["column 'word' has 10000 categories: 9000 rare ones are one code; see --max-categories"]
    assert facts["vocabulary"][:500] == sorted(f"w{n}" for n in range(500))  # three times each, the others twice
    assert reader.raw().shape == (20_500, 1 + 102)
