"""Trained runs beside their mandatory baselines: the same encoder untrained, and the data with no encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.contract import Encoder, Reader
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Features, Labels, Split, knn_probe, linear_probe
from unlabeled.saved import Saved, describe, load

MOST_NUMBERED_CLASSES = 100
"""Whole numbers with more values than this are amounts to regress, not names of classes."""


@dataclass(frozen=True)
class Row:
    """One line of a result: features, probe, metric, and the values over seeds."""

    features: str
    probe: str
    metric: str
    values: tuple[float, ...]

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
    test: str | None  # None: a fifth of train, another one each seed
    label: str
    seeds: int
    majority: float | None  # accuracy of always saying the commonest class; None for numbers
    train_rows: int  # rows with a label that the probes are fitted on
    test_rows: int

    def save(self, path: Path) -> None:
        """Write JSON."""
        rows = [
            {**asdict(row), "mean": row.mean, "spread": row.spread if row.spread == row.spread else None}
            for row in self.rows
        ]
        path.write_text(json.dumps({**asdict(self), "rows": rows}, indent=1) + "\n")

    def value(self, features: str, probe: str, metric: str) -> Row:
        """The row of that name."""
        return next(r for r in self.rows if (r.features, r.probe, r.metric) == (features, probe, metric))


@dataclass(frozen=True)
class _Task:
    """Rows to fit and to test on, for one seed, of one or two readers."""

    train: Reader
    test: Reader
    train_rows: Any
    test_rows: Any
    train_labels: Labels
    test_labels: Labels

    def split(self, features: Callable[[Reader], Features]) -> Split:
        fit = features(self.train)
        other = fit if self.test is self.train else features(self.test)
        return Split(fit[self.train_rows], self.train_labels, other[self.test_rows], self.test_labels)


def evaluate(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str,
    test: str | None = None,
    seeds: int = 3,
    baselines: bool = True,
    device: torch.device | None = None,
) -> Result:
    """Probe runs of one domain and encoder, the encoder untrained, and raw features.

    Args:
        runs: run folders, say one a pre-training seed; each is probed with every seed.
        train, test: data for the probe; without test a fifth of train is kept for it, another one each seed.
        label: what the reader calls the label.
        seeds: of the untrained encoder, of inner validation splits, and of the split where there is no test.
        baselines: measure the untrained encoder and raw features too; no only where they stand beside it already.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    saved = [describe(run) for run in runs]
    for other in saved[1:]:
        if (other.domain, other.encoder) != (saved[0].domain, saved[0].encoder):
            raise UserError(f"{runs[0]} and a later run hold different encoders; evaluate them one by one")
    one = saved[0]
    reader = one.make_reader(train)
    tester = one.make_reader(test) if test else reader
    labelled, tested = _labels(reader, tester, label)
    tasks = [_task(reader, tester, labelled, tested, seed) for seed in range(seeds)]
    rows: list[Row] = []
    trained = [_features(load(run), what, device) for run, what in zip(runs, saved, strict=True)]
    name = "trained" + (f" ({one.method})" if one.method else "")
    rows += _probe(name, [(task.split(f), seed) for f in trained for seed, task in enumerate(tasks)])
    if baselines:
        rows += _baselines(one, tasks, device)
    known = (len(tasks[0].train_rows), len(tasks[0].test_rows))
    return Result(tuple(rows), train, test, label, seeds, _majority(tasks[0]), *known)


def _baselines(saved: Saved, tasks: Sequence[_Task], device: torch.device | None) -> list[Row]:
    """The same encoder untrained, from a seed for each task, and the data with no encoder."""
    fresh = [_features(saved.make_encoder(seed=1000 + seed), saved, device) for seed in range(len(tasks))]
    rows = _probe("untrained", [(t.split(f), seed) for seed, (f, t) in enumerate(zip(fresh, tasks, strict=True))])
    if tasks[0].train.raw() is not None:
        rows += _probe("raw", [(task.split(_raw), seed) for seed, task in enumerate(tasks)])
    return rows


def _raw(reader: Reader) -> Features:
    raw = reader.raw()
    assert raw is not None
    return raw


def _features(encoder: Encoder, saved: Saved, device: torch.device | None) -> Callable[[Reader], Features]:
    """Instances of all of a reader's samples, computed once a reader."""
    done: dict[int, Features] = {}

    def of(reader: Reader) -> Features:
        if id(reader) not in done:
            made = embed(encoder, reader, saved.make_view(), saved.registry, device=device)
            if made.broken:
                raise UserError(
                    f"{len(made.broken)} samples cannot be read, the first is {made.broken[0].name} "
                    f"({made.broken[0].reason}); remove them before an evaluation"
                )
            done[id(reader)] = made.instances.numpy()
        return done[id(reader)]

    return of


def _probe(name: str, splits: Sequence[tuple[Split, int]]) -> list[Row]:
    """Rows of every probe and metric over the splits."""
    found: dict[tuple[str, str], list[float]] = {}
    for split, seed in splits:
        for probe, scores in (("linear", linear_probe(split, seed)), ("knn", knn_probe(split))):
            for metric, value in scores.items():
                found.setdefault((probe, metric), []).append(value)
    return [Row(name, probe, metric, tuple(values)) for (probe, metric), values in found.items()]


@dataclass(frozen=True)
class _Labelled:
    """The rows that have a label, and it."""

    rows: Labels
    values: Labels

    @staticmethod
    def of(reader: Reader, label: str) -> _Labelled:
        values = np.asarray(reader.labels(label))
        known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
        return _Labelled(np.flatnonzero(known), values[known])

    def to(self, values: Labels) -> _Labelled:
        return _Labelled(self.rows, values)


def _labels(reader: Reader, tester: Reader, label: str) -> tuple[_Labelled, _Labelled]:
    """Class numbers (int64) or targets (float64) of both; rows without a label are left out.

    Raises:
        UserError: the encoder was trained on it; fewer than two classes; test classes that training rows do not have.
    """
    if reader.sees(label):
        raise UserError(f"the encoder was trained on {label!r}, so a probe of it proves nothing: pre-train without it")
    train = _Labelled.of(reader, label)
    test = train if tester is reader else _Labelled.of(tester, label)
    if not len(train.rows) or not len(test.rows):
        raise UserError(f"no row of the {'test' if len(train.rows) else 'training'} data has a label {label!r}")
    classes = np.unique(train.values)
    whole = train.values.dtype.kind != "f" or bool((classes == np.round(classes)).all())
    if train.values.dtype.kind in "iuf" and (not whole or len(classes) > MOST_NUMBERED_CLASSES):
        return train.to(train.values.astype(np.float64)), test.to(test.values.astype(np.float64))
    if len(classes) < 2:
        raise UserError(f"label {label!r} has one class only ({classes[0]}); a probe needs two")
    unknown = np.setdiff1d(np.unique(test.values), classes)
    if len(unknown):
        raise UserError(
            f"label {label!r} of the test data has {str(unknown[0])!r}, which the training data do not; "
            f"theirs are {', '.join(map(repr, map(str, classes[:5])))}"
        )
    return train.to(np.searchsorted(classes, train.values)), test.to(np.searchsorted(classes, test.values))


def _task(reader: Reader, tester: Reader, train: _Labelled, test: _Labelled, seed: int) -> _Task:
    if tester is not reader:
        return _Task(reader, tester, train.rows, test.rows, train.values, test.values)
    from sklearn.model_selection import train_test_split

    few = train.values.dtype.kind == "f" or np.bincount(train.values).min() < 2
    fit, other = train_test_split(
        np.arange(len(train.rows)), test_size=0.2, random_state=seed, stratify=None if few else train.values
    )
    return _Task(reader, tester, train.rows[fit], train.rows[other], train.values[fit], train.values[other])


def _majority(task: _Task) -> float | None:
    if task.train_labels.dtype.kind == "f":
        return None
    return float((task.test_labels == np.bincount(task.train_labels).argmax()).mean())
