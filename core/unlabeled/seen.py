"""Which samples an encoder was trained on: hashes of their names, so that a test can tell whether it knows them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.contract import Reader
from unlabeled.errors import UserError
from unlabeled.files import absolute, write_whole

Ids = NDArray[np.uint64]
FILE = "samples.npy"


def sample_ids(reader: Reader, source: str, rows: Iterable[int]) -> Ids:
    """Hashes [n] of the names of samples; of those that are only numbered, of their number in this source."""
    place, parts = absolute(source), []
    for row in rows:
        name = reader.name(int(row))
        known = f"{place}\n{name}" if _numbered(name, int(row)) else name
        parts.append(hashlib.blake2b(known.encode(), digest_size=8).digest())
    return np.frombuffer(b"".join(parts), "<u8")


def _numbered(name: str, row: int) -> bool:
    """Whether a name is the sample's number, as "7" or "graph 7": every data set has one of that name."""
    number = str(row)
    before = name.removesuffix(number)
    return name.endswith(number) and (not before or (before[-1] == " " and before[:-1].isidentifier()))


def write_ids(folder: Path, ids: Ids) -> dict[str, Any]:
    """Write them beside an encoder; returns how many there are and a hash of them all, for its description."""
    each = np.unique(ids)
    write_whole(folder / FILE, lambda file: np.save(file, each))
    return {"count": len(each), "hash": hashlib.blake2b(each.tobytes(), digest_size=8).hexdigest()}


def read_ids(folder: Path) -> Ids:
    """What was written, ascending; nothing where an older version wrote none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return np.empty(0, np.uint64)
    try:
        ids: Ids = np.load(path)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); save the run again with --resume, or remove it") from None
    return ids
