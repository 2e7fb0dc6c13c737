"""Embeddings in a file, each row with the name of its sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unlabeled.contract import Reader
from unlabeled.embedding import Embedded
from unlabeled.errors import UserError
from unlabeled.files import write_whole

SUFFIXES = (".parquet", ".csv", ".npz", ".npy")


def write(path: Path, embedded: Embedded, reader: Reader) -> None:
    """Write by the file's suffix: .parquet and .csv (name, e0 … eD), .npz (names, embeddings), .npy (embeddings).

    Raises:
        UserError: another suffix, or no way to write it here.
    """
    names = [reader.name(int(index)) for index in embedded.indices]
    values = embedded.instances.numpy()
    if path.suffix == ".npy":
        write_whole(path, lambda file: np.save(file, values))
    elif path.suffix == ".npz":
        write_whole(path, lambda file: np.savez(file, names=np.array(names), embeddings=values))
    elif path.suffix == ".csv":
        head = ",".join(["name", *(f"e{number}" for number in range(values.shape[1]))])
        lines = (",".join([_quoted(name), *(f"{v:.7g}" for v in row)]) for name, row in zip(names, values, strict=True))
        write_whole(path, lambda file: file.writelines(f"{line}\n".encode() for line in [head, *lines]))
    elif path.suffix == ".parquet":
        _parquet(path, names, values)
    else:
        raise UserError(
            f"cannot write embeddings as {path.suffix or 'a file without suffix'!r}; there are: {', '.join(SUFFIXES)}"
        )


def _parquet(path: Path, names: list[str], values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("writing .parquet needs pyarrow: pip install pyarrow, or write .npz") from None
    columns = {"name": names, **{f"e{number}": values[:, number] for number in range(values.shape[1])}}
    write_whole(path, lambda file: pq.write_table(pa.table(columns), file))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(sign in name for sign in ',"\n') else name
