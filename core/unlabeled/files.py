"""Files that are never half there: written aside, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from unlabeled.errors import UserError

__all__ = ["DOWNLOADS", "downloads", "write_whole"]

DOWNLOADS = "UNLABELED_DATA"
"""Environment: the folder that downloaded data sets are kept in."""


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file by `write(file)` so that a kill at any moment leaves the old one or the new one.

    Raises:
        UserError: the disk is full or refuses; the old file is untouched and the partial one removed.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        with suppress(OSError):  # where a file stands in place of a folder there is nothing to remove
            aside.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UserError(
            f"cannot save {path}: {reason}; make room or choose another --out, nothing older was lost"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda file: file.write(text.encode()))


def replace_folder(made: Path, out: Path) -> None:
    """Put a finished folder in the place of another, or of nothing; a kill leaves the one or the other, whole.

    Args:
        made: beside `out`; it is gone afterwards.
    """
    for path in made.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    aside = out.with_name(f".{out.name}.replaced-{os.getpid()}")
    if out.exists():
        os.replace(out, aside)
    os.replace(made, out)
    _sync_folder(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def downloads(library: str) -> Path:
    """Where the data sets of a library are kept: in $UNLABELED_DATA, else among the user's own caches."""
    own = os.environ.get(DOWNLOADS)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own) if own else cache / "unlabeled") / library


def absolute(source: str) -> str:
    """A path as it can be used from anywhere; what is no path (a name, a glob) as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a file of JSON objects: none where there is no file, and not one cut short by a kill."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
