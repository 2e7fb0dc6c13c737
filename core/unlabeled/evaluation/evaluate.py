"""Trained runs beside their mandatory baselines: the same encoder untrained, and the data with no encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.contract import Encoder, Reader
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Features, Labels, Split, knn_probe, linear_probe
from unlabeled.evaluation.shots import ALL, Shots, parse
from unlabeled.saved import Saved, describe, load

Source = Callable[[Reader], Features]

MOST_NUMBERED_CLASSES = 100
"""Whole numbers with more values than this are amounts to regress, not names of classes."""


@dataclass(frozen=True)
class Row:
    """One line of a result: features, probe, metric, and the values over runs and, within a run, seeds or groups."""

    features: str
    probe: str
    metric: str
    values: tuple[float, ...]
    shots: str = ALL  # the labels that the probe was given
    n: int | None = None  # and how many rows that is

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
    label: str
    seeds: int
    majority: float | None  # accuracy of always saying the commonest class; None for numbers
    train_rows: int  # rows with a label that the probes are fitted on
    test_rows: int
    groups: tuple[str, ...] = ()  # each left out in turn; of a run, a value for each in this order

    def save(self, path: Path) -> None:
        """Write JSON."""
        rows = [
            {**asdict(row), "mean": row.mean, "spread": row.spread if row.spread == row.spread else None}
            for row in self.rows
        ]
        path.write_text(json.dumps({**asdict(self), "rows": rows}, indent=1) + "\n")

    def value(self, features: str, probe: str, metric: str, shots: str = ALL) -> Row:
        """The row of that name."""
        wanted = (features, probe, metric, shots)
        return next(r for r in self.rows if (r.features, r.probe, r.metric, r.shots) == wanted)


@dataclass(frozen=True)
class _Task:
    """Rows to fit and to test on, for one seed, of one or two readers."""

    seed: int
    train: Reader
    test: Reader
    train_rows: Any
    test_rows: Any
    train_labels: Labels
    test_labels: Labels
    classes: tuple[str, ...]

    def few(self, shots: Shots) -> _Task:
        """The same with part of the rows to fit on."""
        chosen = shots.rows(self.train_labels, self.train_rows, self.seed, self.classes)
        return replace(self, train_rows=self.train_rows[chosen], train_labels=self.train_labels[chosen])

    def split(self, features: Source) -> Split:
        fit = features(self.train)
        other = fit if self.test is self.train else features(self.test)
        return Split(fit[self.train_rows], self.train_labels, other[self.test_rows], self.test_labels)


def evaluate(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str,
    test: str | None = None,
    seeds: int | Sequence[int] = 3,
    groups: str | None = None,
    shots: Sequence[str | int] = (ALL,),
    baselines: bool = True,
    device: torch.device | None = None,
) -> Result:
    """Probe runs of one domain and encoder, the encoder untrained, and raw features.

    Args:
        runs: run folders, say one a pre-training seed; each is probed with every seed.
        train, test: data for the probe; without test a fifth of train is kept for it, another one each seed.
        label: what the reader calls the label.
        seeds: of the untrained encoder, of inner folds, of the rows of `shots`, and of the split where there is no
            test; how many, or which.
        groups: what the reader calls the group of a row (speaker, patient, place): each group in turn is what the
            probe is tested on, and fitted on all others.
        shots: how many labels the probes are given, one after another: a share ("1%") or rows a class ("10"). They
            are the same rows for all features, so that differences are paired.
        baselines: measure the untrained encoder and raw features too; no only where they stand beside it already.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    numbers = tuple(range(seeds) if isinstance(seeds, int) else seeds)
    if not numbers:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    parts = parse(shots)
    saved = [describe(run) for run in runs]
    for other in saved[1:]:
        if (other.domain, other.encoder) != (saved[0].domain, saved[0].encoder):
            raise UserError(f"{runs[0]} and a later run hold different encoders; evaluate them one by one")
    one = saved[0]
    if one.labels == label and not test:
        raise UserError(f"{runs[0]} was trained with the labels {label!r}: test it on other rows, with --test")
    reader = one.make_reader(train)
    tester = one.make_reader(test) if test else reader
    labelled, tested = _labels(reader, tester, label)
    names: tuple[str, ...] = ()
    if groups:
        if test:
            raise UserError("--groups leaves out groups of one data set in turn; leave out --test, or --groups")
        names, whole = _each_left_out(reader, labelled, groups, numbers[0])
    else:
        whole = [_task(reader, tester, labelled, tested, seed) for seed in numbers]
    tasks = {part.text: [task.few(part) for task in whole] for part in parts}
    trained = [_features(load(run), what, device) for run, what in zip(runs, saved, strict=True)]
    known = ", ".join(filter(None, (one.method, "with the label" if one.labels == label else "")))
    name = "trained" + (f" ({known})" if known else "")
    rows = _probe(name, tasks, [[source] * len(whole) for source in trained])
    if baselines:
        fresh = [_features(one.make_encoder(1000 + s), one, device) for s in numbers]
        rows += _probe("untrained", tasks, [[source] * len(whole) for source in fresh] if names else [fresh])
        if reader.raw() is not None:
            rows += _probe("raw", tasks, [[_raw] * len(whole)])
    majority = _majority(whole if names else whole[:1])
    sizes = [len(labelled.rows)] * 2 if names else [len(whole[0].train_rows), len(whole[0].test_rows)]
    return Result(tuple(rows), train, test, label, len(numbers), majority, sizes[0], sizes[1], names)


def _raw(reader: Reader) -> Features:
    raw = reader.raw()
    assert raw is not None
    return raw


def _features(encoder: Encoder, saved: Saved, device: torch.device | None) -> Source:
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


def _probe(name: str, tasks: Mapping[str, Sequence[_Task]], runs: Sequence[Sequence[Source]]) -> list[Row]:
    """Rows of every probe and metric for each part of the labels; a run is the source of features for each task."""
    rows: list[Row] = []
    for shots, mine in tasks.items():
        found: dict[tuple[str, str], list[float]] = {}
        for source, task in [pair for run in runs for pair in zip(run, mine, strict=True)]:
            split = task.split(source)
            for probe, scores in (("linear", linear_probe(split, task.seed)), ("knn", knn_probe(split))):
                for metric, value in scores.items():
                    found.setdefault((probe, metric), []).append(value)
        n = len(mine[0].train_rows)
        rows += [Row(name, *what, tuple(values), shots, n) for what, values in found.items()]
    return rows


@dataclass(frozen=True)
class _Labelled:
    """The rows that have a label, and it."""

    rows: Labels
    values: Labels
    classes: tuple[str, ...] = ()

    @staticmethod
    def of(reader: Reader, label: str) -> _Labelled:
        values = np.asarray(reader.labels(label))
        known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
        return _Labelled(np.flatnonzero(known), values[known])

    def to(self, values: Labels, classes: Labels | None = None) -> _Labelled:
        return _Labelled(self.rows, values, () if classes is None else tuple(map(str, classes)))


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
    numbers = [np.searchsorted(classes, one.values) for one in (train, test)]
    return train.to(numbers[0], classes), test.to(numbers[1], classes)


def _task(reader: Reader, tester: Reader, train: _Labelled, test: _Labelled, seed: int) -> _Task:
    if tester is not reader:
        return _Task(seed, reader, tester, train.rows, test.rows, train.values, test.values, train.classes)
    from sklearn.model_selection import train_test_split

    few = train.values.dtype.kind == "f" or np.bincount(train.values).min() < 2
    fit, other = train_test_split(
        np.arange(len(train.rows)), test_size=0.2, random_state=seed, stratify=None if few else train.values
    )
    rows, values = train.rows, train.values
    return _Task(seed, reader, tester, rows[fit], rows[other], values[fit], values[other], train.classes)


def _each_left_out(reader: Reader, train: _Labelled, groups: str, seed: int) -> tuple[tuple[str, ...], list[_Task]]:
    """The names of the groups, and for each a task that is tested on it and fitted on all others."""
    values = np.asarray(reader.labels(groups))[train.rows].astype(str)
    if (values == "").any() or (values == "nan").any():
        raise UserError(f"{int(((values == '') | (values == 'nan')).sum())} labelled rows have no group {groups!r}")
    names = np.unique(values)
    if len(names) < 2:
        raise UserError(f"group {groups!r} has one value only ({names[0]}); to leave one out it takes two")
    tasks = []
    for name in names:
        out = values == name
        rows, labels = train.rows, train.values
        tasks.append(_Task(seed, reader, reader, rows[~out], rows[out], labels[~out], labels[out], train.classes))
    return tuple(map(str, names)), tasks


def _majority(tasks: Sequence[_Task]) -> float | None:
    """Accuracy of always saying the commonest class, the mean over tasks; None for numbers."""
    if tasks[0].train_labels.dtype.kind == "f":
        return None
    shares = [(task.test_labels == np.bincount(task.train_labels).argmax()).mean() for task in tasks]
    return float(np.mean(shares))
