"""What labels can be told from without looking at what they are of: size, border, brightness and metadata of chips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Split, linear_probe
from unlabeled_eo import statistics
from unlabeled_eo.readers import RAW, EOReader
from unlabeled_eo.scenes import Opened

Floats = NDArray[np.float32]
TREES = 300
UNNAMED = ("", "nan")  # labels that say there is none


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
    fit, other = _parts(train, label, test, groups, seed)
    y, truth = fit.classes, other.classes
    leaks = [Leak("majority", float((truth == np.bincount(y).argmax()).mean()), 0)]
    tables = [facts_of(part) for part in (fit, other)]
    tables = [{**table, "all of these": np.concatenate(list(table.values()), 1)} for table in tables]
    for what, known in tables[0].items():
        leaks.append(Leak(what, _forest(known, y, tables[1][what], truth, seed), known.shape[1]))
    for what, inside in (("border", False), ("whole chip", True)):
        known, asked = (pixels(part.looks, inside) for part in (fit, other))
        leaks.append(Leak(what, linear_probe(Split(known, y, asked, truth), seed)["accuracy"], known.shape[1]))
    return leaks


@dataclass(frozen=True)
class Look:
    """What is kept of a chip, so that it is read once."""

    row: int
    bright: list[float]  # means and deviations of its bands
    small: Tensor  # [C, 32, 32]


@dataclass(frozen=True)
class Part:
    """Chips to fit on, or to test on."""

    reader: EOReader
    looks: list[Look]
    classes: NDArray[np.int64]


def look(reader: EOReader) -> dict[int, Look]:
    """At every chip that can be read, by its row."""
    found = {}
    for row in range(len(reader)):
        sample = reader.or_none(row)
        if sample is not None:
            image = statistics.standardised(sample, reader.facts)
            bright = torch.cat([image.mean((1, 2)), image.flatten(1).std(1)]).tolist()
            found[row] = Look(row, bright, torch.nn.functional.adaptive_avg_pool2d(image, RAW))
    return found


def _forest(fit: Floats, y: NDArray[np.int64], other: Floats, truth: NDArray[np.int64], seed: int) -> float:
    from sklearn.ensemble import RandomForestClassifier

    return float(RandomForestClassifier(TREES, random_state=seed).fit(fit, y).score(other, truth))


def _parts(train: EOReader, label: str, test: EOReader | None, groups: str | None, seed: int) -> tuple[Part, Part]:
    """Chips to fit on and to test on."""
    from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

    looks, names = look(train), train.labels(label).astype(str)
    rows = np.array([row for row in looks if names[row] not in UNNAMED], dtype=np.int64)
    classes, y = np.unique(names[rows], return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"label {label!r} has one class only; a panel needs two")
    if test is not None:
        others, asked = test.labels(label).astype(str), look(test)
        kept = np.array([row for row in asked if others[row] in classes], dtype=np.int64)
        if not len(kept):
            raise UserError(
                f"no label {label!r} of the test data is one of the training data's: {', '.join(classes[:5])}"
            )
        truth = np.searchsorted(classes, others[kept])
        return Part(train, [looks[row] for row in rows], y), Part(test, [asked[row] for row in kept], truth)
    if groups:
        which = train.labels(groups).astype(str)[rows]
        if len(np.unique(which)) < 2:
            raise UserError(f"group {groups!r} has one value only; to keep some apart it takes two")
        split = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(rows, y, which)
    else:
        split = ShuffleSplit(1, test_size=0.2, random_state=seed).split(rows)
    fit, other = (Part(train, [looks[row] for row in rows[chosen]], y[chosen]) for chosen in next(iter(split)))
    return fit, other


def facts_of(part: Part) -> dict[str, Floats]:
    """[n, features] of each kind of metadata."""
    size, file, place = [], [], []
    for one in part.looks:
        at, row, column, *_ = part.reader.rows[one.row].tolist()
        scene = part.reader.scenes[at]
        assert isinstance(scene, Opened), "only chips that can be read are asked for"
        header = scene.headers[0]
        size.append([header.height, header.width])
        file.append([sum(Path(some.path).stat().st_size for some in scene.scene.files), len(scene.bands)])
        a, b, c, d, e, f = header.transform
        place.append([hash_of(header.crs or ""), header.pixel, c + column * a + row * b, f + column * d + row * e])
    kinds = {"size": size, "file": file, "place": place, "brightness": [one.bright for one in part.looks]}
    return {name: np.array(values, np.float32) for name, values in kinds.items()}


def hash_of(text: str) -> int:
    """A small number that is the same for the same text."""
    import zlib

    return zlib.crc32(text.encode()) % 65521


def pixels(looks: list[Look], inside: bool) -> Floats:
    """[n, C × 32 × 32] small chips, with the middle half of each side blank unless `inside`."""
    out = torch.stack([one.small for one in looks])
    if not inside:
        out[..., RAW // 4 : -RAW // 4, RAW // 4 : -RAW // 4] = 0
    return out.flatten(1).numpy()
