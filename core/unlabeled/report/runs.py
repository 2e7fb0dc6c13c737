"""What a run's folder says about the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from unlabeled.errors import UserError
from unlabeled.evaluation.kept import Kept, read_kept
from unlabeled.files import read_json_lines
from unlabeled.training.folder import RunFolder
from unlabeled.training.health import Alarm

NO_CURVES = {"step", "epoch", "seconds"}

Points = list[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it."""

    name: str
    path: Path
    config: Mapping[str, Any]
    samples: int | None
    step: int  # the last one logged
    epochs: int
    seconds: float  # of the loop, over all times that the run was resumed
    curves: Mapping[str, Points]  # metric -> values
    alarms: Sequence[tuple[int, str]]
    quarantine: Sequence[Mapping[str, Any]]
    results: Sequence[Kept] = ()
    broken_results: Sequence[str] = ()  # a sentence each

    def option(self, section: str, name: str = "name") -> str:
        """A value of config.yaml as text."""
        value = self.config.get(section)
        found = value.get(name) if isinstance(value, Mapping) else value
        return "" if found is None else str(found)


def read(folder: RunFolder, name: str) -> Shown:
    """What is known of a run, finished or not.

    Raises:
        UserError: the folder is no run's, or a file in it cannot be read.
    """
    try:
        config = folder.read_config()
        lines = folder.read_metrics()
        quarantine = read_json_lines(folder.quarantine)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.path} cannot be read as a run: {error}") from None
    missing = [key for key in ("domain", "data", "method", "training") if key not in config]
    if missing:
        raise UserError(f"{folder.config} is not the configuration of a run: it has no {missing[0]!r}")
    if not all(isinstance(line.get("step"), int) for line in lines):
        raise UserError(f"{folder.metrics} is not the log of a run: a line of it has no step")
    results, broken = read_kept(folder.path)
    return Shown(
        name=name,
        path=folder.path,
        config=config,
        samples=_samples(folder),
        step=max((line["step"] for line in lines), default=0),
        epochs=max((int(line.get("epoch", -1)) for line in lines), default=-1) + 1,
        seconds=_seconds(lines),
        curves=_curves(lines),
        alarms=_alarms(lines),
        quarantine=quarantine,
        results=results,
        broken_results=broken,
    )


def _samples(folder: RunFolder) -> int | None:
    try:
        return folder.read_facts()[0]
    except UserError:  # the page can do without
        return None


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    curves: dict[str, Points] = {}
    for line in lines:
        for name, value in line.items():
            if name not in NO_CURVES and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, []).append((line["step"], float(value)))
    return curves


def _seconds(lines: Sequence[Mapping[str, Any]]) -> float:
    """The clock starts again with each resume, so its highest values add up."""
    clock = [float(line["seconds"]) for line in lines if "seconds" in line]
    return sum(now for now, then in pairwise([*clock, 0.0]) if then < now)


def _alarms(lines: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """What the run's alarm said, by hearing the log again."""
    alarm, said = Alarm(), []
    for line in lines:
        health = {name: line.get(f"health/{name}", math.nan) for name in ("std", "rank", "dead")}
        looked = any(name.startswith("health/") for name in line) or set(line) == {"step"}  # not finite: not logged
        sentence = alarm.look(health, line["step"]) if looked else alarm.hear(line, line["step"])
        if sentence:
            said.append((line["step"], sentence))
    return said
