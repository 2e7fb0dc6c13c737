"""Checkpoints: everything a run needs to go on exactly, in one file that is never half there."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from unlabeled.errors import UserError
from unlabeled.files import write_whole

FORMAT = 1
_NAME = re.compile(r"step-(\d{8})\.pt")


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.pt"


def found(folder: Path) -> list[Path]:
    """Every checkpoint in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint, then remove all but the last `keep`."""
    path = path_of(folder, step)
    write_whole(path, lambda file: torch.save({"format": FORMAT, "step": step, **state}, file))
    for old in found(folder)[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values alone, never code.

    Raises:
        UserError: it is absent, damaged (every record's CRC is checked) or of another format.
    """
    others = [other.name for other in found(path.parent) if other != path]
    way_out = f"remove it to go on from {others[-1]}" if others else "start again with another --out"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise UserError(f"checkpoint {path} is damaged at {damaged}; {way_out}")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}") from None
    except UserError:
        raise
    except Exception as error:  # a damaged zip or pickle may fail in any way
        raise UserError(f"checkpoint {path} is damaged ({str(error).splitlines()[0]}); {way_out}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of unlabeled; {way_out}")
    return state


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    every = found(folder)
    return every[-1] if every else None
