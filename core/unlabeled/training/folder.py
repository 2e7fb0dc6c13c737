"""A run's folder: config.yaml, facts.json, metrics.jsonl, checkpoints/, encoder/, report.html, quarantine.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlabeled.config import Config, load_config
from unlabeled.errors import UserError
from unlabeled.files import read_json_lines, write_text
from unlabeled.training import checkpoint

TIMING = ("seconds", "samples_per_second")
"""Keys of metrics.jsonl that measure the machine; all others are the same for the same config.yaml."""


class RunFolder:
    """Paths and small files of one run. Only rank 0 writes."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.facts = self.path / "facts.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder"
        self.report = self.path / "report.html"
        self.quarantine = self.path / "quarantine.jsonl"

    def start(self, config: Config, facts: Mapping[str, Any], samples: int) -> None:
        """Make a new run's folder.

        Raises:
            UserError: there is a run in it already.
        """
        if self.config.exists():
            raise UserError(f"{self.path} already holds a run: add --resume to go on with it, or choose another --out")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        write_text(self.facts, json.dumps({"samples": samples, "facts": facts}, allow_nan=False))
        config.save(self.config)

    def read_config(self) -> dict[str, Any]:
        """The plain data of config.yaml.

        Raises:
            UserError: this is no run folder.
        """
        if not self.config.exists():
            raise UserError(f"{self.path} holds no run (no config.yaml); `pretrain ... --out {self.path}` makes one")
        return load_config(self.config)

    def read_facts(self) -> tuple[int, dict[str, Any]]:
        """How many samples the run was started with, and what was fitted on them."""
        try:
            data = json.loads(self.facts.read_text())
            return int(data["samples"]), data["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.facts} cannot be read ({error}); the run cannot go on without it") from None

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def rewind(self, step: int) -> None:
        """Drop lines of metrics.jsonl after a step, and one cut short by a kill: the run takes them again."""
        if not self.metrics.exists():
            return
        kept = [line for line in self.metrics.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in kept if json.loads(line)["step"] <= step]
        write_text(self.metrics, "".join(line + "\n" for line in kept))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl."""
        return read_json_lines(self.metrics)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint, or None."""
        return checkpoint.latest(self.checkpoints)
