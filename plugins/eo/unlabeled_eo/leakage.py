"""What labels can be told from without looking at what they are of: size, border, brightness and metadata of chips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Split, linear_probe
from unlabeled_eo import statistics
from unlabeled_eo.readers import RAW, EOReader
from unlabeled_eo.scenes import Opened

Floats = NDArray[np.float32]
TREES = 300


@dataclass(frozen=True)
class Leak:
    """What one thing alone tells."""

    what: str
    accuracy: float
    numbers: int  # how many it is


def panel(
    train: EOReader, label: str, test: EOReader | None = None, groups: str | None = None, seed: int = 0
) -> list[Leak]:
    """Accuracy of classifiers that see nothing of the middle of a chip.

    size: rows and columns of its scene. file: bytes and bands. place: CRS, pixel and position on the map. brightness:
    mean and deviation of its bands. border: its pixels but the middle half (by area a quarter). All of these but the
    border go to a random forest; the border and, beside them, the whole chip to logistic regression.

    Args:
        train, test: of chips; without test a fifth of train is kept for it.
        label: what the reader calls the label.
        groups: what it calls groups that are kept on one side, in place of a random fifth.
        seed: of the split and the forest.

    Raises:
        UserError: one class, or labels of the test data that the training data lack.
    """
    parts = _parts(train, label, test, groups, seed)
    y, truth = parts[0][1], parts[1][1]
    leaks = [Leak("majority", float((truth == np.bincount(y).argmax()).mean()), 0)]
    tables = [facts_of(reader, rows) for reader, rows in ((train, parts[0][0]), (test or train, parts[1][0]))]
    for what in tables[0]:
        fit, other = tables[0][what], tables[1][what]
        leaks.append(Leak(what, _forest(fit, y, other, truth, seed), fit.shape[1]))
    joined = [np.concatenate(list(table.values()), 1) for table in tables]
    leaks.append(Leak("all of these", _forest(joined[0], y, joined[1], truth, seed), joined[0].shape[1]))
    for what, inside in (("border", False), ("whole chip", True)):
        fit, other = (
            pixels(reader, rows, inside) for reader, rows in ((train, parts[0][0]), (test or train, parts[1][0]))
        )
        leaks.append(Leak(what, linear_probe(Split(fit, y, other, truth), seed)["accuracy"], fit.shape[1]))
    return leaks


def _forest(fit: Floats, y: NDArray[np.int64], other: Floats, truth: NDArray[np.int64], seed: int) -> float:
    from sklearn.ensemble import RandomForestClassifier

    return float(RandomForestClassifier(TREES, random_state=seed).fit(fit, y).score(other, truth))


def _parts(
    train: EOReader, label: str, test: EOReader | None, groups: str | None, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and class numbers to fit on and to test on."""
    from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

    names = train.labels(label).astype(str)
    rows = np.flatnonzero(~np.isin(names, ("", "nan")) & readable(train))
    classes, y = np.unique(names[rows], return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"label {label!r} has one class only; a panel needs two")
    if test is not None:
        others = test.labels(label).astype(str)
        kept = np.flatnonzero(np.isin(others, classes) & readable(test))
        if not len(kept):
            raise UserError(
                f"no label {label!r} of the test data is one of the training data's: {', '.join(classes[:5])}"
            )
        return [(rows, y), (kept, np.searchsorted(classes, others[kept]))]
    if groups:
        which = train.labels(groups).astype(str)[rows]
        if len(np.unique(which)) < 2:
            raise UserError(f"group {groups!r} has one value only; to keep some apart it takes two")
        split = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(rows, y, which)
    else:
        split = ShuffleSplit(1, test_size=0.2, random_state=seed).split(rows)
    fit, other = next(iter(split))
    return [(rows[fit], y[fit]), (rows[other], y[other])]


def readable(reader: EOReader) -> NDArray[np.bool_]:
    """[n] which chips can be read."""
    return np.array([reader.or_none(index) is not None for index in range(len(reader))])


def facts_of(reader: EOReader, rows: NDArray[np.int64]) -> dict[str, Floats]:
    """[n, features] of each kind of metadata."""
    size, file, place, bright = [], [], [], []
    for index in rows.tolist():
        at, row, column, *_ = reader.rows[index].tolist()
        one = reader.scenes[at]
        assert isinstance(one, Opened), "only chips that can be read are asked for"
        header = one.headers[0]
        size.append([header.height, header.width])
        file.append([sum(Path(part.path).stat().st_size for part in one.scene.files), len(one.bands)])
        a, b, c, d, e, f = header.transform
        place.append([hash_of(header.crs or ""), header.pixel, c + column * a + row * b, f + column * d + row * e])
        values = statistics.standardised(reader[index], reader.facts).flatten(1)
        bright.append(torch.cat([values.mean(1), values.std(1)]).tolist())
    kinds = {"size": size, "file": file, "place": place, "brightness": bright}
    return {name: np.array(values, np.float32) for name, values in kinds.items()}


def hash_of(text: str) -> int:
    """A small number that is the same for the same text."""
    import zlib

    return zlib.crc32(text.encode()) % 65521


def pixels(reader: EOReader, rows: NDArray[np.int64], inside: bool) -> Floats:
    """Chips shrunk to 32 pixels a side, with the middle half of each side blank unless `inside`."""
    out = np.zeros((len(rows), reader.channels * RAW**2), np.float32)
    for number, index in enumerate(rows.tolist()):
        image = statistics.standardised(reader[index], reader.facts)
        small = torch.nn.functional.adaptive_avg_pool2d(image, RAW)
        if not inside:
            small[:, RAW // 4 : -RAW // 4, RAW // 4 : -RAW // 4] = 0
        out[number] = small.flatten().numpy()
    return out
