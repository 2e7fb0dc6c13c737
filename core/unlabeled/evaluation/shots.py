"""Few labels: which of the labelled rows a probe may use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Labels
from unlabeled.randomness import Draws, sample_keys

ALL = "100%"


@dataclass(frozen=True)
class Shots:
    """A stratified part of the labelled rows: a share of them ("1%"), or a number a class ("10")."""

    text: str
    share: float | None  # of all rows; None: `count` of each class
    count: int = 0

    @staticmethod
    def of(text: str | int) -> Shots:
        """From what a user writes.

        Raises:
            UserError: it is neither a share above 0 and up to 100 % nor a whole number from 1.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)%|(\d+)", str(text).strip())
        if not found:
            raise UserError(f"--shots takes shares of the labels (1%) or rows a class (10), not {text!r}")
        if found[2]:
            if int(found[2]) < 1:
                raise UserError("--shots must leave at least 1 row a class, not 0")
            return Shots(str(int(found[2])), None, int(found[2]))
        percent = float(found[1])
        if not 0 < percent <= 100:
            raise UserError(f"--shots is a share above 0% and up to 100%, not {text}")
        return Shots(f"{percent:g}%", percent / 100)

    def rows(self, labels: Labels, numbers: Labels, seed: int, names: Sequence[str]) -> Labels:
        """Places in `labels` [n] of the rows taken, ascending.

        In each class the rows queue up in an order that depends on (seed, number of the row) alone, and the first
        are taken: what is probed has no influence, and a larger subset holds a smaller one of the same seed.

        Args:
            labels: class numbers, int64 [n].
            numbers: of the rows in their reader, int64 [n].
            seed: of the order.
            names: of the classes, for the error.

        Raises:
            UserError: numbers to regress; a class with fewer rows than are asked for.
        """
        if self.share == 1.0:
            return np.arange(len(labels))
        if labels.dtype.kind == "f":
            raise UserError(f"--shots {self.text} takes rows of each class, and this label is a number; leave it out")
        counts = np.bincount(labels, minlength=len(names))
        short = np.flatnonzero(counts < self.count)
        if len(short):
            name, has = names[short[0]], counts[short[0]]
            raise UserError(f"--shots {self.text} is more than class {name!r} has: {has} labelled training rows")
        draws = Draws(sample_keys(seed, 0, torch.as_tensor(numbers))).fork("shots").bits(1)[:, 0].numpy()
        queues = np.lexsort((draws, labels))  # class after class
        place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(queues[place < self._quota(counts)[labels[queues]]])

    def _quota(self, counts: Labels) -> Labels:
        """Rows of each class [C]: by largest remainders, so that the share is that of all rows; at least one."""
        if self.share is None:
            return np.full_like(counts, self.count)
        exact = self.share * counts
        quota = np.floor(exact).astype(np.int64)
        left = round(self.share * int(counts.sum())) - int(quota.sum())
        quota[np.argsort(quota - exact, kind="stable")[:left]] += 1
        return np.maximum(quota, 1)


def parse(shots: Sequence[str | int]) -> tuple[Shots, ...]:
    """Each once, in the order given.

    Raises:
        UserError: none, or one that is no share and no number.
    """
    if not shots:
        raise UserError("--shots is empty; give shares of the labels (1%) or rows a class (10)")
    return tuple(dict.fromkeys(Shots.of(one) for one in shots))
