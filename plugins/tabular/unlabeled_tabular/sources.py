"""Where a table comes from: CSV and Parquet files, folders and globs of them, scikit-learn's built-in tables."""

from __future__ import annotations

import codecs
import csv
import glob
import io
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.errors import UserError, choose

MISSING = ("", "?", "NA", "N/A", "#N/A", "nan", "NaN", "NAN", "-nan", "null", "Null", "NULL", "none", "None", "NONE")
"""Cells that say nothing, with or without spaces around them."""

SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".parquet", ".pq")
MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format": "an SQLite database",
    b"{": "JSON",
    b"<": "HTML or XML",
}
HEAD = 1 << 20  # bytes that are looked at before a file is believed to be CSV
SKLEARN = "sklearn:"
LABEL = "target"  # the label column of scikit-learn's tables


@dataclass(frozen=True, slots=True)
class Source:
    """Files of equal columns, or a built-in table; `read` gives Arrow columns with stripped names."""

    files: tuple[str, ...]  # paths, or one "sklearn:NAME"
    names: tuple[str, ...]
    delimiter: str
    encoding: str

    @property
    def builtin(self) -> bool:
        return self.files[0].startswith(SKLEARN)

    def read(self, columns: Collection[str] | None = None, text: Collection[str] = ()) -> tuple[Any, list[int]]:
        """An Arrow table of the columns (None: all), and the rows of each file.

        `text` columns keep their characters, so that a category "01" stays "01".

        Raises:
            UserError: a file has no rows, or a row of another length.
        """
        tables = [self._one(path, columns, text) for path in self.files]
        return _joined(tables), [table.num_rows for table in tables]

    def _one(self, path: str, columns: Collection[str] | None, text: Collection[str]) -> Any:
        if path.startswith(SKLEARN):
            table = _sklearn(path)
            return table if columns is None else table.select(list(columns))
        if _is_parquet(path):
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(path) as file:
                wanted = [name for name in file.schema_arrow.names if columns is None or name.strip() in columns]
                table = file.read(wanted)
            table = table.rename_columns([name.strip() for name in table.column_names])
        else:
            table = _read_csv(path, columns, text, self.delimiter, self.encoding)
        if table.num_rows == 0:
            raise UserError(f"{path} has a header and no rows; give it at least one row under the header")
        return table


def find(source: str, delimiter: str | None = None, encoding: str = "utf-8") -> Source:
    """The source behind a path, a folder, a glob or "sklearn:NAME".

    Raises:
        UserError: nothing is there, it is not a table, or its files have different columns.
    """
    if source.startswith(SKLEARN):
        return Source((source,), tuple(_sklearn(source).column_names), ",", encoding)
    files = _files(source)
    first, delimiter = _header(files[0], delimiter, encoding)
    for other in files[1:]:
        names, _ = _header(other, delimiter, encoding)
        if set(names) != set(first):
            odd = sorted(set(names) ^ set(first))[0]
            raise UserError(f"{other} and {files[0]} differ in column {odd!r}; files read together need equal columns")
    return Source(tuple(files), tuple(first), delimiter, encoding)


def _files(source: str) -> list[str]:
    path = Path(source)
    if path.is_file():
        return [source]
    if path.is_dir():
        found = sorted(str(file) for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))
        if not found:
            raise UserError(f"folder {source} holds no table; it needs files ending in {', '.join(SUFFIXES)}")
        return found
    found = sorted(file for file in glob.glob(source, recursive=True) if Path(file).is_file())
    if not found:
        raise UserError(
            f"{source} does not exist; give a CSV or Parquet file, a folder or pattern of them, or sklearn:NAME"
        )
    return found


def _head(path: str) -> bytes:
    import pyarrow as pa

    try:
        with pa.input_stream(path, compression="detect") as stream:
            return bytes(stream.read(HEAD))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read ({str(error).partition('. Detail')[0]}); check the file") from error


def _is_parquet(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _header(path: str, delimiter: str | None, encoding: str) -> tuple[list[str], str]:
    """Stripped column names and the delimiter."""
    if _is_parquet(path):
        names, delimiter = _parquet_names(path), delimiter or ","
    else:
        names, delimiter = _csv_names(path, _text_head(path, encoding), delimiter)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path} has several columns called {twice[0]!r}; give every column its own name")
    return names, delimiter


def _parquet_names(path: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return [name.strip() for name in parquet.read_schema(path).names]
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is a damaged Parquet file ({str(error)[:80]}); write it again") from error


def _text_head(path: str, encoding: str) -> str:
    """The file's first megabyte as text."""
    head = _head(path)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind or (b"\0" in head and not encoding.lower().startswith("utf-16")):
        raise UserError(f"{path} is not a CSV or Parquet file, it looks like {kind or 'binary data'}; export it as CSV")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) < HEAD).lstrip("\ufeff")
    except LookupError as error:
        raise UserError(f"no text encoding is called {encoding!r}; try utf-8 or latin-1") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {encoding} text; if it is CSV, name its --encoding (latin-1?)") from error
    if not text.strip():
        raise UserError(f"{path} is empty; give a CSV file with a header line and rows under it")
    return text


def _csv_names(path: str, text: str, delimiter: str | None) -> tuple[list[str], str]:
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = delimiter or max(",;\t|", key=first.count)
    try:
        names = _first_row(text, delimiter)
    except (csv.Error, TypeError) as error:
        raise UserError(f"{path} has no readable header ({error}); mend it, or name the --delimiter") from error
    if all(_is_number(name) for name in names):
        raise UserError(f"the first line of {path} holds numbers, not column names; put a header line first")
    return [_clean_name(name) for name in names], delimiter


def _first_row(text: str, delimiter: str) -> list[str]:
    return next(row for row in csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter) if row)


def _clean_name(name: str) -> str:
    return name.strip().strip('"').strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_csv(path: str, columns: Collection[str] | None, text: Collection[str], delimiter: str, encoding: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = _first_row(_text_head(path, encoding), delimiter)
    parse = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    markers = [before + marker for marker in MISSING for before in ("", " ")] + ["\t", "  "]
    convert = arrow_csv.ConvertOptions(
        null_values=markers,
        strings_can_be_null=True,
        column_types={name: pa.string() for name in names if _clean_name(name) in text},
        include_columns=None if columns is None else [name for name in names if _clean_name(name) in columns],
    )
    try:
        table = arrow_csv.read_csv(path, arrow_csv.ReadOptions(encoding=encoding), parse, convert)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(_why_not_csv(path, delimiter, encoding, error)) from error
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise UserError(_not_text(path, encoding))
    return table.rename_columns([_clean_name(name) for name in table.column_names])


def _why_not_csv(path: str, delimiter: str, encoding: str, error: Exception) -> str:
    """Names the first line of another length; the fast reader knows no line numbers."""
    import pyarrow as pa

    try:
        with pa.input_stream(path, compression="detect") as raw, io.TextIOWrapper(raw, encoding=encoding) as lines:
            count, rows = 0, csv.reader(lines, delimiter=delimiter)
            for row in filter(None, rows):
                count = count or len(row)
                if len(row) != count:
                    wrong = f"line {rows.line_num} of {path} has {len(row)} values and the header has {count} names"
                    return f"{wrong}; mend that line, or name the --delimiter"
    except (UnicodeDecodeError, csv.Error):
        return _not_text(path, encoding)
    return f"{path} cannot be read as CSV ({str(error)[:120]}); mend that line, or name the --delimiter"


def _not_text(path: str, encoding: str) -> str:
    return f"{path} stops being {encoding} text after its first lines; mend it, or name its --encoding (latin-1?)"


def _joined(tables: list[Any]) -> Any:
    """One table; a column that is text in any file is text in all."""
    import pyarrow as pa

    if len(tables) == 1:
        return tables[0]
    columns = {}
    for name in tables[0].column_names:
        parts = [table.column(name) for table in tables]
        text = any(pa.types.is_string(part.type) for part in parts)
        columns[name] = [part.cast(pa.string()) if text else part for part in parts]
    same = [pa.table({name: parts[number] for name, parts in columns.items()}) for number in range(len(tables))]
    try:
        return pa.concat_tables(same, promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise UserError(f"the files do not agree on a column's type ({str(error)[:160]}); write them alike") from error


def _sklearn(source: str) -> Any:
    """A built-in table with its label as the column "target"; of NAME/test each fifth row, of NAME/train the others."""
    import pyarrow as pa
    from sklearn import datasets

    loaders = {
        name: getattr(datasets, f"load_{name}") for name in ("breast_cancer", "wine", "digits", "iris", "diabetes")
    }
    name, _, part = source.removeprefix(SKLEARN).partition("/")
    bunch = choose("table of scikit-learn", name, loaders)()
    columns = {name: bunch.data[:, number] for number, name in enumerate(bunch.feature_names)}
    labels = bunch.target
    if "target_names" in bunch and bunch.target_names.dtype.kind == "U":
        labels = bunch.target_names[labels]
    table = pa.table({**columns, LABEL: labels})
    if not part:
        return table
    last = np.arange(table.num_rows) % 5 == 4
    return table.filter(pa.array(choose("part of a table of scikit-learn", part, {"train": ~last, "test": last})))
