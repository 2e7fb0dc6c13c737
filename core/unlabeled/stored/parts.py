"""A part: the embeddings of some samples after one another, as they lie on disk until all parts are there."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError
from unlabeled.files import write_text, write_whole

What = Literal["instances", "tokens"]
Floats = NDArray[np.float32]
ASKED = "asked.json"


@dataclass(frozen=True)
class Part:
    """n samples that could be read, and those that could not."""

    names: Sequence[str]  # n
    indices: NDArray[np.int64]  # [n] numbers of the samples
    values: Floats  # [n, D], or of tokens [T, D], sample by sample
    counts: NDArray[np.int64]  # [n] rows of `values` that are each sample's
    coords: Floats  # [T, P] of tokens, in [0, 1]; [n, 0] of instances
    broken: Sequence[tuple[str, str]]  # name and reason

    def save(self, path: Path) -> None:
        """Write whole, so that a part that is there is all there."""
        text = np.frombuffer(json.dumps([list(self.names), list(self.broken)]).encode(), np.uint8)
        arrays = {"indices": self.indices, "values": self.values, "counts": self.counts, "coords": self.coords}
        write_whole(path, lambda file: np.savez(file, text=text, **arrays))  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> Part:
        """What was saved.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with np.load(path) as found:
                names, broken = json.loads(found["text"].tobytes())
                pairs = [(name, reason) for name, reason in broken]
                return Part(names, found["indices"], found["values"], found["counts"], found["coords"], pairs)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); remove it and give the same command again") from None


@dataclass(frozen=True)
class Parts:
    """All parts of one embedding, in a folder beside the file that they become."""

    folder: Path
    count: int

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.npz"

    def missing(self) -> list[int]:
        return [number for number in range(self.count) if not self.path(number).exists()]

    def __iter__(self) -> Iterator[Part]:
        return (Part.load(self.path(number)) for number in range(self.count))

    def open(self, asked: dict[str, Any]) -> None:
        """Begin, or go on where the same was asked for before.

        Raises:
            UserError: the folder holds parts of another embedding.
        """
        path = self.folder / ASKED
        if self.folder.exists() and any(self.folder.iterdir()):
            before = json.loads(path.read_text()) if path.exists() else {}
            other = [name for name in asked if before.get(name) != asked[name]]
            if other:
                raise UserError(
                    f"{self.folder} holds parts of an embedding of another {', '.join(other)}: remove that folder, or "
                    "give another --output"
                )
            return
        write_text(path, json.dumps(asked, indent=1))
