"""Every mistake a user can make is one sentence that names the thing and the way out."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from unlabeled.errors import UserError
from unlabeled_tabular.readers import TableReader

Make = Callable[..., str]
GOOD = "age,city\n1,x\n2,y\n3,x\n"


def refused(source: str, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        TableReader(source, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"\xe3", "is not utf-8 text"),
        (b"a,b\n", "has a header and no rows"),
        (b"a,b\n1,2\n", "has one row"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "looks like a PNG image"),
        (b"PK\x03\x04\x14\0", "looks like a zip archive or an Excel workbook"),
        (pickle.dumps({"a": [1, 2]}), "looks like a pickle"),
        (b'{"a": 1}', "looks like JSON"),
        (b"a,b\n1,\0\0\n", "looks like binary data"),
        ("größe,b\n1,2\n".encode("latin-1"), "is not utf-8 text"),
        (b"a,b\n1,2\n3\n4,5\n", "line 3 of .* has 1 values and the header has 2 names"),
        (b'a,b\n"1\n1",2\n3,4,5\n', "line 4 of .* has 3 values"),
        (b"a,b,a\n1,2,3\n", "several columns called 'a'"),
        (b"a, a\n1,2\n", "several columns called 'a'"),
        (b"1,2,3\n4,5,6\n", "first line of .* holds numbers"),
        (b"a,b\n1,5\n2,5\n", "only one usable column, 'a' .*constant: 'b'"),
        (b"a,b\n5,\n5,\n", "no usable column .*constant: 'a'; left out, all missing: 'b'"),
        (b"PAR1 and no more", "damaged Parquet"),
    ],
)
def test_files_that_are_no_table(make: Make, content: bytes, says: str) -> None:
    path = make(content)
    with pytest.raises(UserError, match=says) as error:
        TableReader(path)
    assert Path(path).name in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_breaks_late(make: Make) -> None:
    rows = b"a,b\n" + b"1,word\n2,other\n" * 100_000 + "3,größe\n".encode("latin-1")
    assert "stops being utf-8 text" in refused(make(rows))


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(str(tmp_path / "no.csv"))
    assert "does not exist" in refused(str(tmp_path / "*.csv"))
    assert "holds no table" in refused(str(tmp_path))
    assert "did you mean iris or" in refused("sklearn:irish")
    assert "no part of a table of scikit-learn is called 'tset'; did you mean test" in refused("sklearn:iris/tset")


def test_a_damaged_archive(make: Make) -> None:
    assert "cannot be read" in refused(make(b"not gzip at all", "table.csv.gz"))


def test_files_of_different_columns(make: Make, tmp_path: Path) -> None:
    make(GOOD, "one.csv")
    make("age,town\n1,x\n", "two.csv")
    assert "differ in column 'city'" in refused(str(tmp_path))


def test_files_that_disagree_on_a_type(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [1, 2], "b": [True, False]}), tmp_path / "one.parquet")
    parquet.write_table(pa.table({"a": [1, 2], "b": [[1], [2]]}), tmp_path / "two.parquet")
    assert "do not agree on a column's type" in refused(str(tmp_path))


def test_columns_that_are_not_there(make: Make) -> None:
    path = make(GOOD)
    assert "exclude: " in refused(path, exclude=["cty"])
    assert "has no column 'cty'; did you mean city?" in refused(path, exclude=["cty"])
    assert "columns: " in refused(path, columns={"aged": "number"})
    assert "did you mean age?" in refused(path, columns={"aged": "number"})


def test_options_that_make_no_sense(make: Make) -> None:
    path = make(GOOD)
    assert "did you mean number?" in refused(path, columns={"age": "numbr"})
    assert "do one of them" in refused(path, columns={"age": "number"}, exclude=["age"])
    assert "every column" in refused(path, exclude=["age", "city"])
    assert "there are: quantile, standard" in refused(path, numbers="ranks")
    assert "at least 1" in refused(path, max_categories=0)
    assert "name the --delimiter" in refused(path, delimiter=";;")
    assert "no text encoding" in refused(path, encoding="klingon")
    assert "only one usable column, 'age'" in refused(path, exclude=["city"])


def test_bytes_where_the_encoder_wants_numbers(make: Make, tmp_path: Path) -> None:
    facts = TableReader(make(GOOD)).facts
    path = tmp_path / "bytes.parquet"
    parquet.write_table(pa.table({"age": [b"1", b"2"], "city": ["x", "y"]}), path)
    assert "column 'age'" in refused(str(path), facts=facts)


def test_exclude_may_be_one_text_with_commas(make: Make) -> None:
    reader = TableReader(make("a,b,c,d\n1,2,3,4\n2,3,3,1\n5,1,2,2\n"), exclude="c, d")  # type: ignore[arg-type]
    assert [one["name"] for one in reader.facts["columns"]] == ["a", "b"]
