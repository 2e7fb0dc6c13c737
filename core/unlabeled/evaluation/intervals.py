"""Confidence intervals over test items: how much a number would move with other items of the same kind.

Each resample counts every item of a data set Poisson(1) times, the bootstrap for items that come one at a time. The
counts belong to the item, so that seeds, probes and kinds of features are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unlabeled.evaluation.metrics import Floats, Metrics, points
from unlabeled.evaluation.probes import Labels
from unlabeled.evaluation.results import Row
from unlabeled.evaluation.shots import ALL

RESAMPLES = 1000
LEVEL = 0.95
AT_ONCE = 4_000_000  # weights in memory

Items = Sequence[Labels]  # of each data set, which of its rows are tested
Judged = Sequence[tuple[Items, Metrics]]  # with each seed or group


def summarise(
    name: tuple[str, str], judged: Judged, shots: str = ALL, n: int | None = None, rates: tuple[float, ...] = ()
) -> list[Row]:
    """A row for each metric of what was judged with each seed or group, by the names of the features and the probe."""
    values = [points(metrics, sum(map(len, items))) for items, metrics in judged]
    return [
        Row(*name, metric, tuple(one[metric] for one in values if metric in one), shots, n, rates, interval)
        for metric, interval in intervals(judged).items()
    ]


def intervals(judged: Judged) -> dict[str, tuple[float, float] | None]:
    """Of each metric's mean over what was judged (seeds, groups) the central 95 % over resamples of the items."""
    used = [np.unique(np.concatenate(rows)) for rows in zip(*(items for items, _ in judged), strict=True)]
    placed = [[np.searchsorted(of, rows) for of, rows in zip(used, items, strict=True)] for items, _ in judged]
    names = list(dict.fromkeys(name for _, metrics in judged for name in metrics))
    means: dict[str, list[Floats]] = {name: [] for name in names}
    for counts in _resamples([len(rows) for rows in used]):
        weights = [np.concatenate([c[:, p] for c, p in zip(counts, places, strict=True)], axis=1) for places in placed]
        for name in names:
            pairs = zip(weights, judged, strict=True)
            values = [metrics[name](one) for one, (_, metrics) in pairs if name in metrics]
            means[name].append(np.mean(values, axis=0))
    return {name: _central(np.concatenate(parts)) for name, parts in means.items()}


def _resamples(lengths: Sequence[int]) -> Iterator[list[Floats]]:
    """Counts [r, length] of each data set, so many resamples at once as memory allows."""
    chance = [np.random.default_rng(number) for number in range(len(lengths))]
    most = max(1, min(RESAMPLES, AT_ONCE // max(sum(lengths), 1)))
    for start in range(0, RESAMPLES, most):
        size = min(most, RESAMPLES - start)
        yield [one.poisson(1.0, (size, n)).astype(np.float64) for one, n in zip(chance, lengths, strict=True)]


def _central(values: Floats) -> tuple[float, float] | None:
    """None where no resample has a value."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
