"""Broken samples: skipped, counted, written down with their reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from unlabeled.data.batches import Broken
from unlabeled.errors import UserError
from unlabeled.files import read_json_lines


class Quarantine:
    """quarantine.jsonl: a line per broken sample, once a process; too many of them stop the run."""

    def __init__(self, path: Path, samples: int, most: float):
        self.path, self.samples, self.most = path, samples, most
        self.seen: set[int] = {line["index"] for line in read_json_lines(path)}

    def add(self, broken: Iterable[Broken]) -> None:
        """Note samples that could not be read.

        Raises:
            UserError: their share of the data is above what was allowed.
        """
        for item in broken:
            if item.index in self.seen:
                continue
            self.seen.add(item.index)
            line = {"index": item.index, "name": item.name, "reason": item.reason}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if len(self.seen) > self.most * self.samples:
                raise UserError(
                    f"{len(self.seen)} of {self.samples} samples cannot be read, more than --max-broken {self.most:g} "
                    f"allows; the last is {item.name} ({item.reason})"
                    f"; all are in {self.path}"
                )
