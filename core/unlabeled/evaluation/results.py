"""What an evaluation found: rows of numbers, and what they were measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.evaluation.shots import ALL

TREES = "boosted trees"  # a baseline of tables, in the place of a probe
COMMONEST = "always the commonest class"  # the least of baselines, as tables and pages call it


@dataclass(frozen=True)
class Row:
    """One line of a result: features, probe, metric, and the values over runs and, within a run, seeds or groups."""

    features: str
    probe: str
    metric: str
    values: tuple[float, ...]
    shots: str = ALL  # the labels that the probe was given
    n: int | None = None  # and how many rows that is
    rates: tuple[float, ...] = ()  # of fine-tuning: for each value the rate chosen on held-out training rows
    interval: tuple[float, float] | None = None  # 95 % of the mean over resamples of the test items

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; nothing with one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class Result:
    """Every row of an evaluation, and what it was measured on."""

    rows: tuple[Row, ...]
    train: str
    test: str | None  # None: a fifth of train, another one each seed, or each of the groups
    label: str | None
    seeds: int
    majority: float | None  # accuracy of always saying the commonest class; None for numbers
    train_rows: int  # rows with a label that the probes are fitted on
    test_rows: int
    groups: tuple[str, ...] = ()  # each left out in turn; of a run, a value for each in this order
    protocol: str = "probe"
    split: str = ""  # how rows to fit on and to test on were told apart
    runs: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()  # a hash for each run
    commit: str | None = None  # of the checkout that measured
    warnings: tuple[str, ...] = ()  # a sentence each
    asked: Mapping[str, Any] = field(default_factory=dict)  # the arguments, but for the runs; plain JSON

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(self.text())

    def text(self, **more: Any) -> str:
        """JSON, with more entries on request."""
        rows = [
            {**asdict(row), "mean": row.mean, "spread": row.spread if row.spread == row.spread else None}
            for row in self.rows
        ]
        return json.dumps({**asdict(self), "rows": rows, **more}, indent=1) + "\n"

    @staticmethod
    def of(data: Mapping[str, Any]) -> Result:
        """From the data of such JSON; entries that it does not know are left out.

        Raises:
            KeyError, TypeError, ValueError: these are no result's.
        """
        rows = tuple(_known(Row, one) for one in data["rows"])
        if not all(row.values for row in rows):
            raise ValueError("a row has no values")
        made: Result = _known(Result, {**data, "rows": rows})
        return made

    def value(self, features: str, probe: str, metric: str, shots: str = ALL) -> Row:
        """The row of that name."""
        wanted = (features, probe, metric, shots)
        return next(r for r in self.rows if (r.features, r.probe, r.metric, r.shots) == wanted)


def _known(what: type[Any], data: Mapping[str, Any]) -> Any:
    """A dataclass from plain data, whose lists were tuples."""
    names = {one.name for one in fields(what)}
    return what(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in names})
