"""Labels of the samples on a map: which colour each has, and how often neighbours share theirs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlabeled.contract import Reader
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled.evaluation.labels import are_amounts

COLOURS = 10
OTHER, NONE = -1, -2  # colours of what is of a rare class, and of what has no label

RAMP = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")  # viridis, even in lightness


class Unanswered(UserError):
    """What was asked for by name cannot be had: an error of the command, and not a gap of the page."""


@dataclass(frozen=True)
class Labels:
    """A label of n samples: classes with a colour each, or numbers on a ramp."""

    spec: str
    texts: Sequence[str]  # n; "" where there is none
    classes: Sequence[str] = ()  # that have a colour, in the order of the legend
    values: Sequence[float] | None = None  # n numbers, NaN where there is none; None: classes
    seen: bool = False  # the encoder was given it

    @staticmethod
    def of(reader: Reader, spec: str, numbers: Sequence[int]) -> Labels:
        """Of samples by their numbers. The commonest classes of all samples have a colour, whatever the map shows.

        Raises:
            UserError: the reader knows no such label, or no sample on the map has one.
        """
        try:
            every = labels_of(reader, spec)
        except UserError as error:
            raise Unanswered(str(error)) from None
        seen, chosen = reader.sees(spec), list(numbers)
        if every.dtype.kind in "iuf" and are_amounts(every[np.isfinite(every)]):
            values = np.where(np.isfinite(every), every, np.nan).astype(float)[chosen].tolist()
            made = Labels(spec, ["" if value != value else f"{value:.4g}" for value in values], (), values, seen)
        else:
            words = [_word(one) for one in every.tolist()]
            counts = Counter(word for word in words if word)
            common = sorted(counts, key=lambda word: (-counts[word], word))[:COLOURS]
            made = Labels(spec, [words[n] for n in chosen], sorted(common, key=_natural), None, seen)
        if not any(made.texts):
            raise Unanswered(f"no sample on the map has a label {spec!r}; name another, or other samples with --data")
        return made

    @property
    def name(self) -> str:
        """A word for it: what was asked for, where that is one, and not a pattern or a file."""
        return self.spec if re.fullmatch(r"[\w -]+", self.spec) else "label"

    def colour(self, place: int) -> int:
        """Number of a sample's colour, OTHER or NONE; of classes alone."""
        text = self.texts[place]
        return NONE if not text else self.classes.index(text) if text in self.classes else OTHER

    @property
    def ends(self) -> tuple[float, float]:
        """Of the ramp: the 5th and 95th percentile, so that an outlier does not take all colours."""
        known = [value for value in self.values or () if value == value]
        low, high = np.quantile(known, [0.05, 0.95])
        return float(low), float(high)

    def shade(self, place: int) -> str | None:
        """The ramp's colour of a sample's number, as CSS; None where it has none."""
        assert self.values is not None
        value = self.values[place]
        if value != value:
            return None
        low, high = self.ends
        return ramp(0.5 if high == low else (value - low) / (high - low))

    def shared(self, every: Sequence[Sequence[int]]) -> tuple[float, float] | None:
        """Of the nearest of labelled samples the share of the sample's class, and what chance would give.

        None: of numbers, or where no labelled sample has a labelled neighbour.
        """
        if self.values is not None:
            return None
        known = [place for place, text in enumerate(self.texts) if text]
        pairs = [(one, other) for one in known for other in every[one] if self.texts[other]]
        if not pairs:
            return None
        counts = Counter(self.texts[place] for place in known)
        by_chance = [(counts[self.texts[place]] - 1) / max(len(known) - 1, 1) for place in known]
        return float(np.mean([self.texts[a] == self.texts[b] for a, b in pairs])), float(np.mean(by_chance))


def ramp(share: float) -> str:
    """A colour between the ends of RAMP, for 0 … 1."""
    at = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(at), len(RAMP) - 2)
    pair = [[int(colour[n : n + 2], 16) for n in (1, 3, 5)] for colour in RAMP[low : low + 2]]
    mixed = [round(a + (b - a) * (at - low)) for a, b in zip(*pair, strict=True)]
    return "#" + "".join(f"{one:02x}" for one in mixed)


def _word(value: Any) -> str:
    """A label as text: 3.0 is "3", and what is missing is nothing."""
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) else ""
    return str(value)


def _natural(word: str) -> tuple[int, float, str]:
    """10 after 9, words after numbers."""
    try:
        return 0, float(word), word
    except ValueError:
        return 1, 0.0, word
