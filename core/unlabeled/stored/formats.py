"""Formats of embeddings: each is written part by part, so that memory never holds them all."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, optional
from unlabeled.files import write_text, write_whole
from unlabeled.stored.parts import Part, Parts, What


@dataclass(frozen=True)
class Size:
    """What parts come to."""

    samples: int
    rows: int  # instances or tokens
    width: int  # D
    places: int  # P, coordinates of a token; 0 of instances
    broken: tuple[tuple[str, str], ...]  # name and reason of samples that could not be read

    @staticmethod
    def of(parts: Parts) -> Size:
        samples = rows = width = places = 0
        broken = list[tuple[str, str]]()
        for part in parts:
            samples, rows = samples + len(part.names), rows + len(part.values)
            broken += part.broken
            if len(part.values):
                width, places = part.values.shape[1], part.coords.shape[1]
        return Size(samples, rows, width, places, tuple(broken))


@dataclass(frozen=True)
class Format:
    """How a suffix is written, and whether it has room for tokens, of which each sample has several."""

    write: Callable[[Path, Parts, Size, What], None]
    tokens: bool = True


def check(path: Path, what: What) -> None:
    """Refuse before any work.

    Raises:
        UserError: no such suffix, no room for tokens, or what writes it is not installed.
    """
    known = FORMATS.get(path.suffix)
    if known is None:
        suffix = repr(path.suffix) if path.suffix else "a file without suffix"
        raise UserError(f"cannot write embeddings as {suffix}; there are: {', '.join(FORMATS)}")
    if what == "tokens" and not known.tokens:
        others = ", ".join(suffix for suffix, one in FORMATS.items() if one.tokens)
        raise UserError(f"{path.suffix} has no room to say which token is whose; there are: {others}")
    _library(path)


def _npy(path: Path, parts: Parts, size: Size, what: What) -> None:
    """The numbers alone; names lie beside them, a JSON string a line."""
    write_whole(path, lambda file: _array(file, _values(parts), (size.rows, size.width), np.float32))
    lines = (json.dumps(name, ensure_ascii=False) for part in parts for name in part.names)
    write_text(path.with_suffix(".names.jsonl"), "".join(f"{line}\n" for line in lines))


def _npz(path: Path, parts: Parts, size: Size, what: What) -> None:
    """names [n], embeddings [rows, D]; of tokens also counts [n] and coords [rows, P]."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as pack:
            with pack.open("names.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.array([name for part in parts for name in part.names], dtype=str))
            with pack.open("embeddings.npy", "w", force_zip64=True) as entry:
                _array(entry, _values(parts), (size.rows, size.width), np.float32)
            if what == "tokens":
                with pack.open("counts.npy", "w", force_zip64=True) as entry:
                    _array(entry, (part.counts for part in parts), (size.samples,), np.int64)
                with pack.open("coords.npy", "w", force_zip64=True) as entry:
                    _array(entry, (part.coords for part in parts), (size.rows, size.places), np.float32)

    write_whole(path, write)


def _array(file: Any, pieces: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """A .npy of pieces one after another."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for piece in pieces:
        file.write(np.ascontiguousarray(piece, dtype).tobytes())


def _values(parts: Parts) -> Iterator[NDArray[np.float32]]:
    return (part.values for part in parts if len(part.values))


def _columns(part: Part, size: Size, what: What) -> dict[str, Any]:
    """Columns of a table: name, of tokens its number in its sample and c0 … its place, e0 … the numbers."""
    values = part.values.reshape(-1, size.width)
    if what == "instances":
        return {"name": list(part.names), **{f"e{at}": values[:, at] for at in range(size.width)}}
    coords = part.coords.reshape(-1, size.places)
    return {
        "name": [name for name, count in zip(part.names, part.counts, strict=True) for _ in range(count)],
        "token": np.concatenate([np.arange(count) for count in part.counts] or [np.arange(0)]),
        **{f"c{at}": coords[:, at] for at in range(size.places)},
        **{f"e{at}": values[:, at] for at in range(size.width)},
    }


def _csv(path: Path, parts: Parts, size: Size, what: What) -> None:
    def write(file: BinaryIO) -> None:
        text = TextIOWrapper(file, "utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        for number, part in enumerate(parts):
            columns = _columns(part, size, what)
            if number == 0:
                table.writerow(columns)
            kept = [
                [f"{x:.7g}" for x in one] if one.dtype == np.float32 else one for one in map(_listed, columns.values())
            ]
            table.writerows(zip(*kept, strict=True))
        text.flush()
        text.detach()

    write_whole(path, write)


def _listed(column: Any) -> NDArray[Any]:
    return column if isinstance(column, np.ndarray) else np.array(column, dtype=object)


def _parquet(path: Path, parts: Parts, size: Size, what: What) -> None:
    import pyarrow as pa

    pq = _library(path)

    def write(file: BinaryIO) -> None:
        writer = None
        for part in parts:
            table = pa.table(_columns(part, size, what))
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema)
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()

    write_whole(path, write)


def _zarr(path: Path, parts: Parts, size: Size, what: What) -> None:
    """A Zarr group of the arrays of an .npz, in chunks of a part or so."""
    zarr = _library(path)
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    group = zarr.open_group(aside, mode="w")
    rows = max(1, min(size.rows, (1 << 22) // max(1, size.width)))  # chunks of 16 MB at most
    chunk = max(1, min(size.samples, 1 << 20))
    arrays: dict[str, tuple[tuple[int, ...], tuple[int, ...], Any]] = {
        "names": ((size.samples,), (chunk,), str),
        "embeddings": ((size.rows, size.width), (rows, size.width), "float32"),
    }
    if what == "tokens":
        arrays["counts"] = ((size.samples,), (chunk,), "int64")
        arrays["coords"] = ((size.rows, size.places), (rows, max(1, size.places)), "float32")
    made = {name: group.create_array(name, shape=s, chunks=c, dtype=d) for name, (s, c, d) in arrays.items()}
    row = sample = 0
    for part in parts:
        if not len(part.values):
            continue
        made["embeddings"][row : row + len(part.values)] = part.values
        made["names"][sample : sample + len(part.names)] = np.array(part.names, dtype=object)
        if what == "tokens":
            made["counts"][sample : sample + len(part.counts)] = part.counts
            made["coords"][row : row + len(part.values)] = part.coords
        row, sample = row + len(part.values), sample + len(part.names)
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def _library(path: Path) -> Any:
    """What writes a suffix; None where NumPy and Python do."""
    known = {".parquet": ("pyarrow.parquet", "pyarrow"), ".zarr": ("zarr", "zarr")}.get(path.suffix)
    return known and optional(*known, f"writing {path.suffix}", "store", ", or write .npz")


FORMATS = {
    ".parquet": Format(_parquet),
    ".csv": Format(_csv),
    ".npz": Format(_npz),
    ".npy": Format(_npy, tokens=False),
    ".zarr": Format(_zarr),
}
