"""What a reader of the numbers must know: samples on both sides of a split, and classes too small to split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unlabeled.contract import Reader
from unlabeled.evaluation.features import Source, once
from unlabeled.evaluation.probes import Features, Labels
from unlabeled.saved import encoder_folder
from unlabeled.seen import Ids, read_ids, sample_ids


class Tested:
    """Test samples by hashes of their names, made once for all that they are compared with."""

    def __init__(self, reader: Reader, source: str, rows: Labels):
        self.reader, self.rows = reader, rows
        self.ids = sample_ids(reader, source, rows)

    def among(self, others: Ids, after: str) -> str:
        """A sentence where some are among others, `after` its end with a place for an example; else ""."""
        found = self.rows[np.isin(self.ids, others)]
        if not len(found):
            return ""
        example = f" (say {self.reader.name(int(found[0]))})"
        return f"{len(found):,} of {len(self.rows):,} test samples " + after.format(example)


def known_to_the_encoder(run: str | Path, tested: Tested, told: bool) -> str:
    """A sentence where a run was trained on test samples; "" where it was not, or is older than what says so.

    Args:
        told: whether the run was also told the label.
    """
    labels = "and their labels too" if told else "though not their labels"
    after = f"were among those that {run} was pre-trained on, by name{{}}: its features know them, {labels}"
    return tested.among(read_ids(encoder_folder(run)), after)


def known_to_the_probe(tested: Tested, train: Reader, data: str, fitted: Labels) -> str:
    """A sentence where test samples have the names of samples that are fitted on."""
    after = f"have the names of samples of {data} that are fitted on{{}}: give a test set of other samples"
    return tested.among(sample_ids(train, data, fitted), after)


def same_content(pairs: Iterable[tuple[Reader, Labels, Reader, Labels]], features: Source) -> str:
    """A sentence where test samples are, number for number, samples that are fitted on, whatever they are called.

    Args:
        pairs: of each task the test's reader and rows, and those that are fitted on.
        features: raw ones, or where there are none an encoder's.
    """
    same: dict[int, str] = {}  # test row -> the names of both
    every: set[int] = set()
    hashes = once(lambda reader: _hashes(features(reader)))
    for test, tested, train, fitted in pairs:
        known = {hashes(train)[row]: row for row in fitted.tolist()}
        every.update(tested.tolist())
        for row in tested.tolist():
            if hashes(test)[row] in known:
                same[row] = f"{test.name(row)} and {train.name(known[hashes(test)[row]])}"
    if not same:
        return ""
    return (
        f"{len(same):,} of {len(every):,} test samples are the same as samples that are fitted on (say "
        f"{next(iter(same.values()))}): the numbers are too good by them"
    )


def _hashes(x: Features) -> list[bytes]:
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(x)]


def alone(labels: Labels, classes: Sequence[str], label: str | None) -> str:
    """A sentence where a class has one row only, which cannot be on both sides of a split."""
    if labels.dtype.kind != "i":
        return ""
    few = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 1)
    if not len(few):
        return ""
    names = ", ".join(repr(classes[number]) for number in few[:3])
    return f"{len(few)} classes of {label!r} have one row only (say {names}): no split can be in proportion to classes"
