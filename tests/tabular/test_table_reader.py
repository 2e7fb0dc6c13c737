"""Facts, samples, labels and the raw baseline of the table reader."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.contract import Batch
from unlabeled.errors import UserError
from unlabeled_tabular import schema
from unlabeled_tabular.columns import Column
from unlabeled_tabular.readers import TableReader

Make = Callable[..., str]


def equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_batch_and_item_agree_exactly(reader: TableReader) -> None:
    rows = [5, 0, 63, 5]
    batch = reader.batch(rows)
    for place, row in enumerate(rows):
        assert equal({name: value[place] for name, value in batch.items()}, reader[row])
    types = {name: (value.dtype, value.shape[1]) for name, value in batch.items()}
    assert types == {"numbers": (torch.float32, 4), "missing": (torch.bool, 4), "codes": (torch.int64, 2)}


def test_facts_are_plain_json(reader: TableReader) -> None:
    assert json.loads(json.dumps(reader.facts, allow_nan=False)) == reader.facts


def test_it_pickles(reader: TableReader) -> None:
    other = pickle.loads(pickle.dumps(reader))
    assert equal(other.batch(range(64)), reader.batch(range(64)))
    assert (other.labels("churned") == reader.labels("churned")).all()


def test_the_example_has_every_kind(reader: TableReader) -> None:
    kinds = {one["name"]: one["type"] for one in reader.facts["columns"]}
    assert kinds == {
        "age": "number",
        "income": "number",
        "since": "date",
        "visits": "number",
        "city": "category",
        "member": "boolean",
    }
    assert [row["column"] for row in reader.summary()] == ["age", "income", "city", "member", "since", "visits"]
    assert len({tuple(row) for row in reader.summary()}) == 1
    assert reader.name(6) == "people.csv:7"


@pytest.mark.parametrize("numbers", ["quantile", "standard"])
def test_numbers_are_standardised(make: Make, numbers: str) -> None:
    chance = np.random.default_rng(0)
    rows = zip(chance.lognormal(0, 2, 2000), chance.integers(0, 3, 2000), strict=True)
    reader = TableReader(make("heavy,few\n" + "".join(f"{a},{b}\n" for a, b in rows)), numbers=numbers)
    values = reader.batch(range(2000))["numbers"]
    torch.testing.assert_close(values.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(
        values.std(0), torch.ones(2), atol=0.1 if numbers == "quantile" else 0.2, rtol=0
    )  # tails are clipped
    assert values.abs().max() < (4 if numbers == "quantile" else 10.01)
    assert len(values[:, 1].unique()) == 3


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=200).filter(lambda v: len(set(v)) > 1),
    numbers=st.sampled_from(["quantile", "standard"]),
)
def test_standardising_keeps_order_and_stays_finite(values: list[float], numbers: str) -> None:
    column = Column("x", "number", numbers=np.array(values))
    facts, _ = schema.fit(column, numbers, 10, told=True)
    assert facts is not None
    ordered = schema.standardise(facts, numbers, np.sort(np.array([*values, -1e30, 1e30])))
    assert np.isfinite(ordered).all()
    assert (np.diff(ordered) >= -1e-6).all()
    json.dumps(facts, allow_nan=False)


def test_the_grid_keeps_atoms(make: Make) -> None:
    text = "gain,a\n" + "".join(f"{0 if n % 10 else n},{n % 3}\n" for n in range(1000))
    grid = TableReader(make(text)).facts["columns"][0]["grid"]
    assert len(grid) == 256
    assert grid.count(0.0) / 256 == pytest.approx(0.9, abs=0.01)
    assert set(grid) <= {float(n) for n in range(0, 1000, 10)}


@pytest.mark.parametrize("numbers", ["quantile", "standard"])
def test_huge_numbers_do_not_overflow(make: Make, numbers: str) -> None:
    reader = TableReader(make("x,y\n1e300,1\n-1e300,2\n3,4\n0,5\n"), numbers=numbers)
    assert reader.batch(range(4))["numbers"].isfinite().all()
    json.dumps(reader.facts, allow_nan=False)


def test_given_facts_nothing_is_fitted(make: Make) -> None:
    train = TableReader(make("n,c,b\n1,x,0\n2,y,1\n3,x,1\n4,x,0\n"))
    text = "b,extra,c,n\n1.0,9, y ,2\n0,9,new,100\n,9,?,\n7,9,x,inf\n"
    test = TableReader(make(text, "test.csv"), facts=train.facts)
    assert test.facts is train.facts
    batch = test.batch(range(4))
    assert batch["numbers"][0] == train.batch([1])["numbers"][0]
    assert batch["missing"][:, 0].tolist() == [False, False, True, True]
    assert batch["codes"].tolist() == [[3, train[1]["codes"][1]], [1, train[0]["codes"][1]], [0, 0], [2, 1]]
    assert test.notices[-1] == "not seen by the encoder: 'extra'"
    assert test.raw().shape[1] == train.raw().shape[1]


def test_one_row_can_be_read_with_facts(make: Make) -> None:
    train = TableReader(make("n,c\n1,x\n2,y\n3,x\n"))
    assert len(TableReader(make("n,c\n?,z\n", "one.csv"), facts=train.facts)) == 1


def test_a_column_without_a_cell_is_all_missing_under_given_facts(make: Make) -> None:
    train = TableReader(make("n,c,b\n1,x,0\n2,y,1\n3,x,1\n"))
    test = TableReader(make("n,c,b\n,,\n,,\n", "test.csv"), facts=train.facts)
    assert test.batch([0, 1])["missing"].all()
    assert (test.batch([0, 1])["codes"] == 0).all()


def test_an_absent_column_is_named(make: Make) -> None:
    train = TableReader(make("age,city\n1,x\n2,y\n3,x\n"))
    with pytest.raises(UserError, match=r"test.csv has no column 'age', which the encoder .* did you mean ages\?"):
        TableReader(make("ages,city\n1,x\n", "test.csv"), facts=train.facts)


def test_codes_of_a_told_category_keep_their_zeros(make: Make) -> None:
    train = TableReader(make("zip,a\n01,1\n02,2\n01,3\n"), columns={"zip": "category"})
    test = TableReader(make("zip,a\n1,1\n02,2\n", "test.csv"), facts=train.facts)
    assert test.batch([0, 1])["codes"][:, 0].tolist() == [1, 3]


def test_labels_are_clean_and_need_no_column_of_the_encoder(make: Make) -> None:
    path = make('a,b,label,y,z,w\n1,3, yes. ,1,0.5,true\n2,4,"no",2,1,false\n3,5,no,3,,true\n')
    reader = TableReader(path, exclude=["label", "y", "z", "w"])
    assert reader.labels("label").tolist() == ["yes", "no", "no"]
    assert reader.labels("y").tolist() == [1, 2, 3]
    assert reader.labels("y").dtype == np.int64
    assert reader.labels("w").tolist() == ["true", "false", "true"]
    assert math.isnan(reader.labels("z")[2])
    assert reader.labels("a").tolist() == [1, 2, 3]
    with pytest.raises(UserError, match=r"has no column 'lable'; did you mean label\?"):
        reader.labels("lable")


def test_raw_is_standardised_numbers_and_one_hot(make: Make) -> None:
    reader = TableReader(make("n,m,c\n1,1,x\n2,,y\n3,2,x\n6,4,\n"))
    raw = reader.raw()
    assert raw.dtype == np.float32
    n = np.array([1, 2, 3, 6])
    np.testing.assert_allclose(raw[:, 0], (n - 3) / n.std(), rtol=1e-5)
    assert raw[:, 2].tolist() == [0, 1, 0, 0]
    assert raw[1, 1] == 0
    assert raw[:, 3:].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]


def test_parquet_is_read_like_csv(example: str, reader: TableReader, tmp_path: Path) -> None:
    from pyarrow import csv

    table = csv.read_csv(example)
    table = table.set_column(2, "city", table.column("city").dictionary_encode())
    table = table.append_column("nested", pa.array([[1]] * 64))
    path = tmp_path / "people.parquet"
    parquet.write_table(table, path)
    other = TableReader(str(path), exclude=["churned"])
    assert other.facts == reader.facts
    assert equal(other.batch(range(64)), reader.batch(range(64)))
    assert other.notices == ["left out, neither numbers nor text: 'nested'"]


def test_folders_and_patterns_are_one_table(make: Make, tmp_path: Path) -> None:
    make("a,b\n1,x\n2,y\n", "one.csv")
    make("b,a\nx,3\nz,0.5\nx,1\n", "two.csv")
    make("not a table", "notes.md")
    for source in (str(tmp_path), str(tmp_path / "*.csv")):
        reader = TableReader(source)
        assert len(reader) == 5
        assert [reader.name(row) for row in (0, 2)] == ["one.csv:1", "two.csv:1"]
        assert reader.labels("b").tolist() == ["x", "y", "x", "z", "x"]
    with pytest.raises(IndexError):
        reader.name(5)


def test_a_column_may_be_text_in_one_file_and_numbers_in_another(make: Make, tmp_path: Path) -> None:
    make("a,b\n1,x\n2,y\n", "one.csv")
    make("a,b\nlow,x\n1,y\n", "two.csv")
    assert TableReader(str(tmp_path)).labels("a").tolist() == ["1", "2", "low", "1"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_are_found(make: Make, delimiter: str) -> None:
    text = 'a,"b, c",d\n1,x,2\n2,y,4\n3,x,5\n'.replace("a,", f"a{delimiter}").replace('c",', f'c"{delimiter}')
    text = text.split("\n", 1)[0] + "\n" + text.split("\n", 1)[1].replace(",", delimiter)
    reader = TableReader(make(text))
    assert {one["name"] for one in reader.facts["columns"]} == {"a", "b, c", "d"}


def test_byte_order_marks_spaces_in_names_and_other_encodings(make: Make) -> None:
    reader = TableReader(make("\ufeffage, städt\n1,x\n2,y\n4,x\n"), exclude=["age"][:0])
    assert {one["name"] for one in reader.facts["columns"]} == {"age", "städt"}
    latin = make("age,städt\n1,ö\n2,y\n4,ö\n".encode("latin-1"), "latin.csv")
    assert TableReader(latin, encoding="latin-1").labels("städt").tolist() == ["ö", "y", "ö"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_empty_lines(make: Make, end: str) -> None:
    reader = TableReader(make(end.join(["", "a,b", "1,x", "", "2,y", "3,x", "", ""])))
    assert reader.labels("b").tolist() == ["x", "y", "x"]


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "digits", "iris", "diabetes"])
def test_sklearn_tables_leave_their_label_out(name: str) -> None:
    reader = TableReader(f"sklearn:{name}")
    assert "target" not in [one["name"] for one in reader.facts["columns"]]
    assert len(reader.labels("target")) == len(reader)
    assert len(np.unique(reader.labels("target"))) >= 2


def test_sklearn_tables_come_in_two_parts() -> None:
    whole, *parts = (TableReader(f"sklearn:iris{part}").raw() for part in ("", "/train", "/test"))
    assert whole is not None
    assert [len(part) for part in parts] == [120, 30]  # type: ignore[arg-type]
    names = [TableReader(f"sklearn:iris{part}").labels("target").tolist() for part in ("", "/train", "/test")]
    assert names[2] == names[0][4::5]
    assert sorted(names[1] + names[2]) == sorted(names[0])


def test_adult_is_read_as_documented(adult: Path) -> None:
    train = TableReader(str(adult / "adult-train.csv"), exclude=["income"])
    kinds = {one["name"]: one["type"] for one in train.facts["columns"]}
    assert len(train) == 32561
    assert [name for name in kinds if kinds[name] == "number"] == [
        "age",
        "fnlwgt",
        "education-num",
        "capital-gain",
        "capital-loss",
        "hours-per-week",
    ]
    assert {name for name in kinds if kinds[name] == "category"} | {"income"} == {
        *("workclass", "education", "marital-status", "occupation", "relationship", "race", "sex"),
        *("native-country", "income"),
    }
    gaps = {one["name"] for one in train.facts["columns"] if one["missing"]}
    assert gaps == {"workclass", "occupation", "native-country"}
    test = TableReader(str(adult / "adult-test.csv"), facts=train.facts)
    words, counts = np.unique(test.labels("income"), return_counts=True)
    assert dict(zip(words.tolist(), counts.tolist(), strict=True)) == {"<=50K": 12435, ">50K": 3846}


def test_a_row_is_described_by_its_cells_as_the_file_has_them(tmp_path: Path) -> None:
    names = ["b", *(f"x{number}" for number in range(10)), "secret"]
    rows = [
        [f" word {n % 3}{'y' * 60 * (n == 2)}", *(f"{n * 1.25 + k:.3f}" for k in range(10)), f"s{n % 2}"]
        for n in range(30)
    ]
    rows[4][1] = "?"
    path = tmp_path / "table.csv"
    path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    reader = TableReader(str(path), exclude=["secret", "x1"])
    found = reader.describe(3)
    assert list(found) == ["b", "x0", "x2", "x3", "x4", "x5", "x6", "x7"], "eight of the file's, without those left out"
    assert found["b"] == "word 0"
    assert float(found["x5"]) == 3 * 1.25 + 5
    assert reader.describe(4)["x0"] == ""
    assert reader.describe(2)["b"].endswith("y…")
    assert len(reader.describe(2)["b"]) == 40
    again = TableReader(str(path), facts=reader.facts)
    assert again.describe(3) == found
