"""What is fitted and what is tested on: labelled rows of one or two readers, for each seed or group."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.contract import Reader
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled.evaluation.caveats import Tested, alone, known_to_the_encoder, known_to_the_probe, same_content
from unlabeled.evaluation.features import Source
from unlabeled.evaluation.labels import Form, Labelled, read_labels
from unlabeled.evaluation.probes import Labels, Split
from unlabeled.evaluation.provenance import commit, config_hash
from unlabeled.evaluation.results import Result, Row
from unlabeled.evaluation.shots import Shots, parse
from unlabeled.files import absolute
from unlabeled.saved import Saved, describe


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
    far: Reader | None = None  # samples of another kind, to be told from those of the test

    def few(self, shots: Shots) -> Task:
        """The same with part of the rows to fit on."""
        labels, names = self.train_labels, self.classes
        if labels.ndim == 2 and shots.share is None:
            raise UserError(f"--shots {shots.text} is rows a class, and samples here have several labels; give a share")
        if labels.ndim == 2:
            labels, names = np.zeros(len(labels), np.int64), ("",)
        return self.fitted_on(shots.rows(labels, self.train_rows, self.seed, names))

    def fitted_on(self, chosen: Any) -> Task:
        """The same with some of the rows to fit on, by their place among them."""
        return replace(self, train_rows=self.train_rows[chosen], train_labels=self.train_labels[chosen])

    def split(self, features: Source) -> Split:
        """Features and labels of both kinds of rows."""
        fit = features(self.train)
        other = fit if self.test is self.train else features(self.test)
        far = None if self.far is None else features(self.far)
        return Split(fit[self.train_rows], self.train_labels, other[self.test_rows], self.test_labels, far)

    @property
    def items(self) -> list[Labels]:
        """Of each data set that is tested on, which rows."""
        return [self.test_rows, *([] if self.far is None else [np.arange(len(self.far))])]


@dataclass(frozen=True)
class Study:
    """Runs of one encoder, and for each part of the labels the tasks that they are judged by."""

    runs: tuple[str | Path, ...]
    saved: tuple[Saved, ...]
    train: str
    test: str | None
    label: str | None
    seeds: tuple[int, ...]
    tasks: Mapping[str, Sequence[Task]]  # a task a seed, or a group
    groups: tuple[str, ...]  # their names
    group: str | None  # what the reader calls them
    majority: float | None
    train_rows: int
    test_rows: int

    @property
    def name(self) -> str:
        """Of the runs' features in a result."""
        told = bool(self.label) and self.saved[0].labels == self.label
        known = ", ".join(filter(None, (self.saved[0].method, "with the label" if told else "")))
        return "trained" + (f" ({known})" if known else "")

    @property
    def reader(self) -> Reader:
        """Of the rows to fit on."""
        return next(iter(self.tasks.values()))[0].train

    def result(self, protocol: str, rows: Sequence[Row], features: Source, **asked: Any) -> Result:
        """Rows with what they were measured on.

        Args:
            features: that tell whether two samples are one: raw ones, or where there are none an encoder's.
            asked: what the protocol was told beside what a study knows.
        """
        sizes = (self.train_rows, self.test_rows)
        about = (self.train, self.test, self.label, len(self.seeds), self.majority)
        return Result(
            tuple(rows),
            *about,
            *sizes,
            self.groups,
            protocol=protocol,
            split=self.split,
            runs=tuple(map(str, self.runs)),
            configs=tuple(config_hash(run) for run in self.runs),
            commit=commit(),
            warnings=self._warnings(features),
            asked=self._asked(protocol, asked),
        )

    def _asked(self, protocol: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """What tells one question from another, but for the runs; data by their place, wherever it is asked from."""
        places = {name: absolute(one) for name, one in (("train", self.train), ("test", self.test)) if one}
        told = {"protocol": protocol, "label": self.label, "seeds": list(self.seeds), "groups": self.group}
        plain: dict[str, Any] = json.loads(json.dumps({**told, **places, "shots": list(self.tasks), **more}))
        return plain

    @property
    def split(self) -> str:
        """The split's name."""
        if self.groups:
            return f"each {self.group} left out"
        return "given test set" if self.test else f"random fifth held out, seeds {', '.join(map(str, self.seeds))}"

    def _warnings(self, features: Source) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        tasks = max(self.tasks.values(), key=lambda some: len(some[0].train_rows))
        one, source = tasks[0], self.test or self.train
        tested = Tested(one.test, source, np.unique(np.concatenate([task.test_rows for task in tasks])))
        told = bool(self.label) and self.saved[0].labels == self.label
        seen = (known_to_the_encoder(run, tested, told) for run in self.runs)
        found = [next(filter(None, seen), "")]
        if self.test:
            found.append(known_to_the_probe(tested, one.train, self.train, one.train_rows))
        elif not self.groups:
            found.append(alone(np.concatenate([one.train_labels, one.test_labels]), one.classes, self.label))
        if self.label and not (self.test and found[-1]):
            pairs = ((task.test, task.test_rows, task.train, task.train_rows) for task in tasks)
            found.append(same_content(pairs, features))
        return tuple(filter(None, found))


def prepare(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str | None,
    test: str | None,
    seeds: int | Sequence[int],
    groups: str | None,
    shots: Sequence[str | int],
    folds: int | None = None,
    form: Form = "any",
    ood: str | None = None,
) -> Study:
    """Read labels and decide who is fitted and tested on; the arguments are those of `evaluate`.

    Args:
        form: of the labels.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    numbers, parts, saved = _numbers(seeds), parse(shots), _alike(runs)
    one = saved[0]
    if label and one.labels == label and not test:
        raise UserError(f"{runs[0]} was trained with the labels {label!r}: test it on other rows, with --test")
    if test and (groups or folds):
        which = "--groups leaves out groups" if groups else "--folds leaves out parts"
        raise UserError(f"{which} of one data set in turn; leave out --test, or {which.split()[0]}")
    if groups and folds:
        raise UserError("--groups and --folds each say what is left out in turn; give one of them")
    reader = one.make_reader(train)
    tester = one.make_reader(test) if test else reader
    labelled, tested = read_labels(reader, tester, label, form)
    names: tuple[str, ...] = ()
    if groups:
        values = labels_of(reader, groups)[labelled.rows]
        names, whole = _each_left_out(reader, labelled, groups, values, numbers[0])
    elif folds:
        groups = f"of {folds} folds"
        names, whole = _each_left_out(reader, labelled, groups, _folds(labelled, folds, numbers[0]), numbers[0])
    else:
        whole = [_task(reader, tester, labelled, tested, seed) for seed in numbers]
    if ood:
        far = one.make_reader(ood)
        whole = [replace(task, far=far) for task in whole]
    _refuse_one_class(whole, names)
    tasks = {part.text: [task.few(part) for task in whole] for part in parts}
    majority = _majority(whole if names else whole[:1])
    sizes = (len(labelled.rows),) * 2 if names else (len(whole[0].train_rows), len(whole[0].test_rows))
    return Study(tuple(runs), saved, train, test, label, numbers, tasks, names, groups, majority, *sizes)


def _numbers(seeds: int | Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(range(seeds) if isinstance(seeds, int) else seeds)
    if not numbers:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    return numbers


def _alike(runs: Sequence[str | Path]) -> tuple[Saved, ...]:
    """What the runs hold, which must be the same encoder."""
    saved = tuple(describe(run) for run in runs)
    for other in saved[1:]:
        if (other.domain, other.encoder) != (saved[0].domain, saved[0].encoder):
            raise UserError(f"{runs[0]} and a later run hold different encoders; evaluate them one by one")
    return saved


def _task(reader: Reader, tester: Reader, train: Labelled, test: Labelled, seed: int) -> Task:
    if tester is not reader:
        return Task(seed, reader, tester, train.rows, test.rows, train.values, test.values, train.classes)
    from sklearn.model_selection import train_test_split

    if len(train.rows) < 2:
        raise UserError(
            f"one row has a label ({reader.name(int(train.rows[0]))}), and a test needs another; give --test"
        )
    fit, other = train_test_split(
        np.arange(len(train.rows)), test_size=0.2, random_state=seed, stratify=proportions(train.values, 0.2)
    )
    rows, values = train.rows, train.values
    return Task(seed, reader, tester, rows[fit], rows[other], values[fit], values[other], train.classes)


def proportions(labels: Labels, share: float) -> Labels | None:
    """What to stratify a split by: classes where each has two rows and both parts have room for all, else nothing."""
    if labels.dtype.kind != "i":
        return None
    counts = np.unique(labels, return_counts=True)[1]
    part = math.ceil(share * len(labels))
    return labels if counts.min() >= 2 and min(part, len(labels) - part) >= len(counts) else None


def _folds(train: Labelled, count: int, seed: int) -> NDArray[np.str_]:
    """The fold of each row by its number from 1, classes in proportion.

    Raises:
        UserError: fewer than two folds, or a class has fewer rows than there are folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    rows, labels = np.arange(len(train.rows)), train.values
    if not 2 <= count <= len(rows):
        raise UserError(f"--folds is from 2 to the number of labelled rows, {len(rows):,}, not {count}")
    kind: type[KFold | StratifiedKFold] = KFold
    if labels.dtype.kind == "i":
        kind, sizes = StratifiedKFold, np.bincount(labels)
        if sizes.min() < count:
            name = train.classes[int(sizes.argmin())]
            raise UserError(f"class {name!r} has {sizes.min()} rows, fewer than {count} folds; give fewer --folds")
    of = np.empty(len(rows), dtype=np.int64)
    for number, (_, out) in enumerate(kind(count, shuffle=True, random_state=seed).split(rows, labels), 1):
        of[out] = number
    return np.char.zfill(of.astype(str), len(str(count)))


def _each_left_out(
    reader: Reader, train: Labelled, groups: str, values: Labels, seed: int
) -> tuple[tuple[str, ...], list[Task]]:
    """The names of the groups, and for each a task that is tested on it and fitted on all others.

    Args:
        groups: what they are called.
        values: the group of each labelled row.
    """
    absent = np.isin(values.astype(str), ["", "nan"])
    if absent.any():
        raise UserError(f"{int(absent.sum())} labelled rows have no group {groups!r}")
    names = np.unique(values)
    if len(names) < 2:
        raise UserError(f"group {groups!r} has one value only ({names[0]}); to leave one out it takes two")
    tasks = []
    for name in names:
        out = values == name
        rows, labels = train.rows, train.values
        tasks.append(Task(seed, reader, reader, rows[~out], rows[out], labels[~out], labels[out], train.classes))
    return tuple(_plain(name) for name in names), tasks


def _plain(name: Any) -> str:
    """A group as people write it: 10, not 10.0."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _refuse_one_class(tasks: Sequence[Task], groups: Sequence[str]) -> None:
    for number, task in enumerate(tasks):
        found = np.unique(task.train_labels)
        if task.train_labels.dtype.kind == "i" and len(found) == 1:
            when = f"where {groups[number]!r} is left out" if groups else f"with seed {task.seed}"
            name = task.classes[found[0]]
            raise UserError(f"all rows to fit on are of class {name!r} {when}; a probe needs two classes")


def _majority(tasks: Sequence[Task]) -> float | None:
    """Accuracy of always saying the commonest class, the mean over tasks; None for numbers."""
    if tasks[0].train_labels.dtype.kind != "i":
        return None
    shares = [(task.test_labels == np.bincount(task.train_labels).argmax()).mean() for task in tasks]
    return float(np.mean(shares))
