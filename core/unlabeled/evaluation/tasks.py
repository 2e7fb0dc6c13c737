"""What is fitted and what is tested on: labelled rows of one or two readers, for each seed or group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.contract import Reader
from unlabeled.errors import UserError
from unlabeled.evaluation.features import Source
from unlabeled.evaluation.probes import Labels, Split
from unlabeled.evaluation.results import Result, Row
from unlabeled.evaluation.shots import Shots, parse
from unlabeled.saved import Saved, describe

MOST_NUMBERED_CLASSES = 100
"""Whole numbers with more values than this are amounts to regress, not names of classes."""


@dataclass(frozen=True)
class Task:
    """Rows to fit and to test on, for one seed, of one or two readers."""

    seed: int
    train: Reader
    test: Reader
    train_rows: Any
    test_rows: Any
    train_labels: Labels
    test_labels: Labels
    classes: tuple[str, ...]

    def few(self, shots: Shots) -> Task:
        """The same with part of the rows to fit on."""
        return self.fitted_on(shots.rows(self.train_labels, self.train_rows, self.seed, self.classes))

    def fitted_on(self, chosen: Any) -> Task:
        """The same with some of the rows to fit on, by their place among them."""
        return replace(self, train_rows=self.train_rows[chosen], train_labels=self.train_labels[chosen])

    def split(self, features: Source) -> Split:
        """Features and labels of both kinds of rows."""
        fit = features(self.train)
        other = fit if self.test is self.train else features(self.test)
        return Split(fit[self.train_rows], self.train_labels, other[self.test_rows], self.test_labels)


@dataclass(frozen=True)
class Study:
    """Runs of one encoder, and for each part of the labels the tasks that they are judged by."""

    runs: tuple[str | Path, ...]
    saved: tuple[Saved, ...]
    train: str
    test: str | None
    label: str
    seeds: tuple[int, ...]
    tasks: Mapping[str, Sequence[Task]]  # a task a seed, or a group
    groups: tuple[str, ...]
    majority: float | None
    train_rows: int
    test_rows: int

    @property
    def name(self) -> str:
        """Of the runs' features in a result."""
        told = self.saved[0].labels == self.label
        known = ", ".join(filter(None, (self.saved[0].method, "with the label" if told else "")))
        return "trained" + (f" ({known})" if known else "")

    @property
    def reader(self) -> Reader:
        """Of the rows to fit on."""
        return next(iter(self.tasks.values()))[0].train

    def result(self, rows: Sequence[Row]) -> Result:
        """Rows with what they were measured on."""
        sizes = (self.train_rows, self.test_rows)
        about = (self.train, self.test, self.label, len(self.seeds), self.majority)
        return Result(tuple(rows), *about, *sizes, self.groups)


def prepare(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str,
    test: str | None,
    seeds: int | Sequence[int],
    groups: str | None,
    shots: Sequence[str | int],
) -> Study:
    """Read labels and decide who is fitted and tested on; the arguments are those of `evaluate`.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    numbers = tuple(range(seeds) if isinstance(seeds, int) else seeds)
    if not numbers:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    parts = parse(shots)
    saved = _alike(runs)
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
    majority = _majority(whole if names else whole[:1])
    sizes = [len(labelled.rows)] * 2 if names else [len(whole[0].train_rows), len(whole[0].test_rows)]
    return Study(tuple(runs), saved, train, test, label, numbers, tasks, names, majority, sizes[0], sizes[1])


def _alike(runs: Sequence[str | Path]) -> tuple[Saved, ...]:
    """What the runs hold, which must be the same encoder."""
    saved = tuple(describe(run) for run in runs)
    for other in saved[1:]:
        if (other.domain, other.encoder) != (saved[0].domain, saved[0].encoder):
            raise UserError(f"{runs[0]} and a later run hold different encoders; evaluate them one by one")
    return saved


@dataclass(frozen=True)
class Labelled:
    """The rows that have a label, and it."""

    rows: Labels
    values: Labels
    classes: tuple[str, ...] = ()

    @staticmethod
    def of(reader: Reader, label: str) -> Labelled:
        values = np.asarray(reader.labels(label))
        known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
        return Labelled(np.flatnonzero(known), values[known])

    def to(self, values: Labels, classes: Labels | None = None) -> Labelled:
        return Labelled(self.rows, values, () if classes is None else tuple(map(str, classes)))


def _labels(reader: Reader, tester: Reader, label: str) -> tuple[Labelled, Labelled]:
    """Class numbers (int64) or targets (float64) of both; rows without a label are left out.

    Raises:
        UserError: the encoder was trained on it; fewer than two classes; test classes that training rows do not have.
    """
    if reader.sees(label):
        raise UserError(f"the encoder was trained on {label!r}, so a probe of it proves nothing: pre-train without it")
    train = Labelled.of(reader, label)
    test = train if tester is reader else Labelled.of(tester, label)
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


def _task(reader: Reader, tester: Reader, train: Labelled, test: Labelled, seed: int) -> Task:
    if tester is not reader:
        return Task(seed, reader, tester, train.rows, test.rows, train.values, test.values, train.classes)
    from sklearn.model_selection import train_test_split

    few = train.values.dtype.kind == "f" or np.bincount(train.values).min() < 2
    fit, other = train_test_split(
        np.arange(len(train.rows)), test_size=0.2, random_state=seed, stratify=None if few else train.values
    )
    rows, values = train.rows, train.values
    return Task(seed, reader, tester, rows[fit], rows[other], values[fit], values[other], train.classes)


def _each_left_out(reader: Reader, train: Labelled, groups: str, seed: int) -> tuple[tuple[str, ...], list[Task]]:
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
        tasks.append(Task(seed, reader, reader, rows[~out], rows[out], labels[~out], labels[out], train.classes))
    return tuple(map(str, names)), tasks


def _majority(tasks: Sequence[Task]) -> float | None:
    """Accuracy of always saying the commonest class, the mean over tasks; None for numbers."""
    if tasks[0].train_labels.dtype.kind == "f":
        return None
    shares = [(task.test_labels == np.bincount(task.train_labels).argmax()).mean() for task in tasks]
    return float(np.mean(shares))
