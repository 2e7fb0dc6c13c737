"""What a reader of the numbers must know: samples on both sides of a split, and classes too small to split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unlabeled.contract import Reader
from unlabeled.evaluation.probes import Labels
from unlabeled.saved import encoder_folder
from unlabeled.seen import Ids, read_ids, sample_ids


def known_to_the_encoder(run: str | Path, reader: Reader, source: str, tested: Labels, told: bool) -> str:
    """A sentence where a run was trained on test samples; "" where it was not, or is older than what says so.

    Args:
        tested: rows of the reader.
        told: whether the run was also told the label.
    """
    labels = "and their labels too" if told else "though not their labels"
    after = f"were among those that {run} was pre-trained on, by name{{}}: its features know them, {labels}"
    return _common(reader, source, tested, read_ids(encoder_folder(run)), after)


def known_to_the_probe(reader: Reader, source: str, tested: Labels, train: Reader, data: str, fitted: Labels) -> str:
    """A sentence where test samples have the names of samples that are fitted on."""
    after = f"have the names of samples of {data} that are fitted on{{}}: give a test set of other samples"
    return _common(reader, source, tested, sample_ids(train, data, fitted), after)


def alone(labels: Labels, classes: Sequence[str], label: str | None) -> str:
    """A sentence where a class has one row only, which cannot be on both sides of a split."""
    if labels.dtype.kind != "i":
        return ""
    few = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 1)
    if not len(few):
        return ""
    names = ", ".join(repr(classes[number]) for number in few[:3])
    return f"{len(few)} classes of {label!r} have one row only (say {names}): no split can be in proportion to classes"


def _common(reader: Reader, source: str, tested: Labels, others: Ids, after: str) -> str:
    found = tested[np.isin(sample_ids(reader, source, tested), others)] if len(others) else tested[:0]
    if not len(found):
        return ""
    return f"{len(found):,} of {len(tested):,} test samples " + after.format(f" (say {reader.name(int(found[0]))})")
