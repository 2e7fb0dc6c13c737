"""What every format starts from: the run, its encoder, and what of its description may leave this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from unlabeled.config import load_config
from unlabeled.contract import Encoder
from unlabeled.files import write_text
from unlabeled.saved import Saved, describe, encoder_files, load, run_folder

PLACE = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,;]+[/\\])*([^\s/\\,;]*)")


@dataclass(frozen=True)
class Written:
    """What a format has to say once its files are there."""

    load: str  # lines of Python that load it; {out} is the folder
    notes: tuple[str, ...] = ()
    difference: float | None = None  # the largest from the original's numbers


@dataclass(frozen=True)
class Job:
    """One export."""

    run: str
    to: str
    data: str | None = None  # whose samples an exported program is traced and compared with; None: the run's own
    push: str = ""  # OWNER/NAME on the Hugging Face hub

    @cached_property
    def saved(self) -> Saved:
        return describe(self.run)

    @cached_property
    def files(self) -> tuple[Path, Path]:
        """The description and the weights."""
        return encoder_files(self.run)

    @cached_property
    def encoder(self) -> Encoder:
        """In eval mode; on the CPU."""
        return load(self.run)

    @cached_property
    def encoder_name(self) -> str:
        """As the domain calls it."""
        return self.saved.encoder.name or next(iter(self.saved.registry.encoders))

    @cached_property
    def description(self) -> dict[str, Any]:
        """As it lies beside the weights."""
        found: dict[str, Any] = json.loads(self.files[0].read_text())
        return found

    @cached_property
    def home(self) -> Path | None:
        """The run's folder; None for an encoder's folder alone."""
        return run_folder(self.run)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml, where there is a run's folder."""
        return load_config(self.home / "config.yaml") if self.home else {}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a small file of JSON whole."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def is_place(value: Any) -> bool:
    """Whether a value is a path that means something on one machine only."""
    if not isinstance(value, str) or not value:
        return False
    return value[0] == "~" or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()


def portable(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description without options that are paths of this machine: elsewhere their defaults stand in.

    Facts stay as they are: they are what was fitted, and the encoder is made of them.
    """
    found = dict(description)
    for part in ("reader", "view", "encoder"):
        found[part] = {name: value for name, value in dict(found[part]).items() if not is_place(value)}
    return {name: placeless(value) if isinstance(value, str) else value for name, value in found.items()}


def placeless(text: str) -> str:
    """Text with the last name of every absolute path in place of the path."""
    return PLACE.sub(lambda found: found[1] or "…", text)


def base_names(source: str) -> str:
    """A source as the names of its files or folders alone: /data/a.csv,/data/b.csv is a.csv, b.csv."""
    parts = [part.strip().rstrip("/\\") for part in source.split(",")]
    return ", ".join(re.split(r"[/\\]", part)[-1] for part in parts if part)
