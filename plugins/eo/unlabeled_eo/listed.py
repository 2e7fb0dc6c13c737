"""What a source lists: scenes, and the files that each of them is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MANY = "|"  # between the labels of a scene that has several


@dataclass(frozen=True)
class File:
    """A file of a scene; its band where its name says one, "" where it may hold several."""

    path: str
    band: str = ""


@dataclass(frozen=True)
class Scene:
    """Files on one piece of ground, with what a manifest says of it."""

    name: str
    files: tuple[File, ...]
    product: str = ""  # the SAFE folder that it is of
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder that it lies in: its own, where it has one for its bands."""
        return Path(self.files[0].path).parent.name
