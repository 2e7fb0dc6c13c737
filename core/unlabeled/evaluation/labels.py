"""Labels as a reader gives them: classes, numbers, or several of them a sample."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unlabeled.contract import Reader
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Labels

Form = Literal["any", "classes", "several", "none", "places"]
"""What a protocol asks of labels: classes or numbers, classes alone, several a sample, none if need be, or classes of
places."""

MOST_NUMBERED_CLASSES = 100
"""Whole numbers with more values than this are amounts to regress, not names of classes."""


@dataclass(frozen=True)
class Labelled:
    """The rows that have a label, and it."""

    rows: Labels
    values: Labels
    classes: tuple[str, ...] = ()

    @staticmethod
    def of(reader: Reader, label: str) -> Labelled:
        """What a reader knows by the name."""
        values = labels_of(reader, label)
        known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
        return Labelled(np.flatnonzero(known), values[known])

    def to(self, values: Labels, classes: Any = ()) -> Labelled:
        """The same rows with other values."""
        return Labelled(self.rows, values, tuple(map(str, classes)))


def read_labels(reader: Reader, tester: Reader, label: str | None, form: Form) -> tuple[Labelled, Labelled]:
    """Class numbers (int64), targets (float64) or labels (bool [n, C]) of both; rows without a label are left out.

    Raises:
        UserError: the encoder was trained on it; it is not of the form; test classes that training rows do not have.
    """
    if label is None:
        if form != "none":
            raise UserError("no label is given; say with --label what to predict")
        every = [Labelled(np.arange(len(one)), np.zeros(len(one))) for one in (reader, tester)]
        return every[0], every[1]
    if form == "places":
        return _with_places(reader, label), _with_places(tester, label)
    if reader.sees(label):
        raise UserError(f"the encoder was trained on {label!r}, so a probe of it proves nothing: pre-train without it")
    train = Labelled.of(reader, label)
    test = train if tester is reader else Labelled.of(tester, label)
    if not len(train.rows) or not len(test.rows):
        which, of = ("test", tester) if len(train.rows) else ("training", reader)
        raise UserError(f"no row of the {which} data has a label {label!r}; rows are called {_examples(of)}")
    if form == "several":
        return _several(train, test, label)
    classes = np.unique(train.values)
    if are_amounts(classes):
        if form == "classes":
            raise UserError(f"label {label!r} is a number, and this protocol needs classes; use --protocol probe")
        return train.to(train.values.astype(np.float64)), test.to(test.values.astype(np.float64))
    if len(classes) < 2:
        raise UserError(f"label {label!r} has one class only ({classes[0]}); a probe needs two")
    _refuse_strangers(np.unique(test.values), classes, label)
    numbers = [np.searchsorted(classes, one.values) for one in (train, test)]
    return train.to(numbers[0], classes), test.to(numbers[1], classes)


def are_amounts(known: Labels) -> bool:
    """Whether labels are numbers to regress; else they name classes."""
    values = np.unique(known)
    return values.dtype.kind in "iuf" and (
        len(values) > MOST_NUMBERED_CLASSES or bool((values != np.round(values)).any())
    )


def _with_places(reader: Reader, label: str) -> Labelled:
    """The rows that have labels of places, which are read later."""
    nowhere = np.empty((0, 1))
    rows = np.array([row for row in range(len(reader)) if reader.labels_at(label, row, nowhere) is not None], np.int64)
    if not len(rows):
        raise UserError(f"no sample has labels of places in {label!r}; samples are called {_examples(reader)}")
    return Labelled(rows, np.zeros(len(rows)))


def _several(train: Labelled, test: Labelled, label: str) -> tuple[Labelled, Labelled]:
    """Labels joined by | or ; as a column for each of them."""
    sets = [[{part.strip() for part in re.split("[|;]", str(one))} - {""} for one in of.values] for of in (train, test)]
    classes, others = (sorted(set().union(*of)) for of in sets)
    if len(classes) < 2:
        raise UserError(f"label {label!r} has one class only ({', '.join(classes)}); several are joined by | or ;")
    _refuse_strangers(np.array(others), np.array(classes), label)
    tables = [np.array([[name in of for name in classes] for of in each]) for each in sets]
    return train.to(tables[0], classes), test.to(tables[1], classes)


def _refuse_strangers(found: Labels, classes: Labels, label: str) -> None:
    unknown = np.setdiff1d(found, classes)
    if len(unknown):
        raise UserError(
            f"label {label!r} of the test data has {str(unknown[0])!r}, which the training data do not; "
            f"theirs are {', '.join(map(repr, map(str, classes[:5])))}"
        )


def _examples(reader: Reader) -> str:
    return ", ".join(reader.name(number) for number in range(min(3, len(reader))))
