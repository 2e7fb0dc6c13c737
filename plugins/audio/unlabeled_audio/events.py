"""Classes of moments, from a table of events."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError

COLUMNS = {
    "file": ("file", "filename", "path"),
    "start": ("start", "onset"),
    "end": ("end", "offset"),
    "label": ("label", "event_label", "event"),
}
SILENT = "none"  # the class of a moment without an event, in a file that the table has


@dataclass(frozen=True)
class Events:
    """Events of each file: seconds and class."""

    of: Mapping[str, Sequence[tuple[float, float, str]]]

    @staticmethod
    def read(path: Path) -> Events:
        """A CSV, or a tab-separated table as DCASE has it: file (filename), start (onset), end (offset), label.

        A line with a file and no label says that the file has been listened to and has no event.

        Raises:
            UserError: there is no such table, or it lacks a column or has a time that is none.
        """
        if not path.is_file():
            raise UserError(f"{path} is no table of events; give a CSV with the columns file, start, end, label")
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        lines = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
        head = list(lines.fieldnames or [])
        found = {key: next((name for name in names if name in head), "") for key, names in COLUMNS.items()}
        missing = [key for key, name in found.items() if not name]
        if missing:
            raise UserError(f"{path} has no column {missing[0]!r} but {', '.join(head)}; name it in the first line")
        of: dict[str, list[tuple[float, float, str]]] = {}
        for number, line in enumerate(lines, 2):
            events = of.setdefault(str(line[found["file"]]).strip(), [])
            name = (line[found["label"]] or "").strip()
            if not name:
                continue
            try:
                span = float(line[found["start"]] or ""), float(line[found["end"]] or "")
            except ValueError:
                raise UserError(f"line {number} of {path} has a time that is no number of seconds; mend it") from None
            events.append((*span, name))
        return Events(of)

    def at(self, name: str, seconds: NDArray[np.float64]) -> NDArray[np.str_] | None:
        """The class at times [n] in a file; of events at one time the one that began last."""
        events = self.of.get(name, self.of.get(Path(name).name))
        if events is None:
            return None
        found = np.full(len(seconds), SILENT, dtype=object)
        for start, end, label in sorted(events):
            found[(seconds >= start) & (seconds < end)] = label
        return found.astype(str)
