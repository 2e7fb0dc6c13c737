"""Metrics as functions of how often each test item counts, so that one bootstrap serves them all.

A metric takes weights [R, n], a row a resample, and gives [R] values; with all weights 1 it is the metric as the field
knows it. scikit-learn has most of these for one row at a time, which a thousand resamples cannot wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = Floats  # [R, n] whole numbers from 0
Metric = Callable[[Weights], Floats]  # -> [R], NaN where what is left of the items has no value
Metrics = dict[str, Metric]


def points(metrics: Metrics, items: int) -> dict[str, float]:
    """The values where every item counts once."""
    return {name: float(metric(np.ones((1, items)))[0]) for name, metric in metrics.items()}


def mean_of(values: NDArray[Any]) -> Metric:
    """The mean of a value an item [n]; items whose value is NaN are left out."""
    known = np.isfinite(values)
    kept = np.where(known, values, 0.0)
    return lambda weights: _ratio(weights @ kept, weights @ known.astype(np.float64))


def r2(truth: NDArray[Any], guess: NDArray[Any]) -> Metric:
    """1 − residual / total sum of squares."""
    centred = truth - truth.mean()
    residual = np.square(truth - guess)

    def of(weights: Weights) -> Floats:
        mean = _ratio(weights @ centred, weights.sum(1))
        total = weights @ np.square(centred) - weights.sum(1) * np.square(mean)
        return 1 - _ratio(weights @ residual, total, 1.0)  # of equal numbers nothing can be explained

    return of


def auc(truth: NDArray[Any], score: NDArray[Any]) -> Metric:
    """Area under the ROC curve: how often a positive item [n] has the higher score [n]; a tie is half."""
    steps = _Steps(truth, score)

    def of(weights: Weights) -> Floats:
        right, wrong = steps(weights)
        below = wrong.sum(1, keepdims=True) - wrong.cumsum(1) + wrong / 2
        return _ratio((right * below).sum(1), right.sum(1) * wrong.sum(1))

    return of


def average_precision(truth: NDArray[Any], score: NDArray[Any]) -> Metric:
    """Σ (recall_k − recall_{k−1}) precision_k over the distinct scores, from the highest down."""
    steps = _Steps(truth, score)

    def of(weights: Weights) -> Floats:
        right, wrong = steps(weights)
        found = right.cumsum(1)
        precision = _ratio(found, found + wrong.cumsum(1), 0.0)
        return _ratio((right * precision).sum(1), right.sum(1))

    return of


def fpr_at(truth: NDArray[Any], score: NDArray[Any], recall: float = 0.95) -> Metric:
    """The share of negative items with a score at least as high as that which this share of the positive ones has."""
    steps = _Steps(truth, score)

    def of(weights: Weights) -> Floats:
        right, wrong = steps(weights)
        enough = right.cumsum(1) >= recall * right.sum(1, keepdims=True)
        passed = np.take_along_axis(wrong.cumsum(1), enough.argmax(1)[:, None], 1)[:, 0]
        return np.where(right.sum(1) > 0, _ratio(passed, wrong.sum(1)), np.nan)

    return of


def macro(metrics: list[Metric]) -> Metric:
    """The mean over metrics that have a value."""

    def of(weights: Weights) -> Floats:
        values = np.array([metric(weights) for metric in metrics])
        known = np.isfinite(values)
        return _ratio(np.where(known, values, 0).sum(0), known.sum(0))

    return of


class _Steps:
    """The weights of positive and of negative items at each distinct score, from the highest down."""

    def __init__(self, truth: NDArray[Any], score: NDArray[Any]):
        self.order = np.argsort(-score, kind="stable")
        ordered = score[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.truth = truth[self.order].astype(bool)

    def __call__(self, weights: Weights) -> tuple[Floats, Floats]:
        ordered = weights[:, self.order]
        right = np.add.reduceat(ordered * self.truth, self.starts, axis=1)
        return right, np.add.reduceat(ordered * ~self.truth, self.starts, axis=1)


def _ratio(top: NDArray[Any], bottom: NDArray[Any], otherwise: float = np.nan) -> Floats:
    """top / bottom, and `otherwise` where there is nothing to divide by."""
    out: Floats = np.full(np.broadcast(top, bottom).shape, otherwise)
    np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0)
    return out


# ---- of places: a table of how many places of each item are of class i and are said to be of class j


def of_places(truth: NDArray[Any], guess: NDArray[Any], owner: NDArray[Any], classes: int, items: int) -> Metrics:
    """accuracy over places, and iou and f1, means over the classes that are there or said; items are resampled.

    Args:
        truth, guess: class numbers [n].
        owner: the item of each place [n].
    """
    table = np.zeros((items, classes, classes))
    np.add.at(table, (owner, truth, guess), 1)

    def by(metric: Metric) -> Metric:
        return lambda weights: metric(np.tensordot(np.asarray(weights, np.float64), table, 1))

    def parts(of: Floats) -> tuple[Floats, Floats]:  # [R, C, C] -> right places of a class, and those it or said to be
        right = np.diagonal(of, axis1=1, axis2=2)
        return right, of.sum(1) + of.sum(2)

    def accuracy(of: Floats) -> Floats:
        return _ratio(parts(of)[0].sum(1), of.sum((1, 2)))

    def iou(of: Floats) -> Floats:
        right, both = parts(of)
        return _known_mean(_ratio(right, both - right))

    def f1(of: Floats) -> Floats:
        right, both = parts(of)
        return _known_mean(_ratio(2 * right, both))

    return {"iou": by(iou), "f1": by(f1), "accuracy": by(accuracy)}


def _known_mean(values: Floats) -> Floats:
    """[R, C] -> [R], over what has a value."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1))


# ---- of a partition: a table of how many items are of class i and in cluster j


def partition_metrics(truth: NDArray[Any], found: NDArray[Any]) -> Metrics:
    """NMI (arithmetic mean), adjusted Rand index, and accuracy by the best one-to-one names for clusters (Hungarian).

    Args:
        truth, found: class and cluster numbers [n] from 0.
    """
    from scipy.sparse import csr_array

    shape = int(truth.max()) + 1, int(found.max()) + 1
    cells = truth * shape[1] + found
    one_hot = csr_array((np.ones(len(cells)), (np.arange(len(cells)), cells)), shape=(len(cells), shape[0] * shape[1]))

    def by(metric: Metric) -> Metric:
        return lambda weights: metric(np.asarray(weights @ one_hot).reshape(-1, *shape))

    return {"nmi": by(_nmi), "ari": by(_ari), "accuracy": by(_matched)}


def _nmi(table: Floats) -> Floats:  # [R, C, K] -> [R]
    share = _ratio(table, table.sum((1, 2), keepdims=True))
    classes, clusters = _entropy(share.sum(2)), _entropy(share.sum(1))
    mutual = classes + clusters - _entropy(share.reshape(len(share), -1))
    return _ratio(2 * mutual, classes + clusters, 1.0)


def _entropy(share: Floats) -> Floats:
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy: Floats = -(share * logarithm).sum(-1)
    return entropy


def _ari(table: Floats) -> Floats:
    def pairs(counts: Floats) -> Floats:
        made: Floats = (counts * (counts - 1) / 2).reshape(len(table), -1).sum(1)
        return made

    both, classes, clusters = pairs(table), pairs(table.sum(2)), pairs(table.sum(1))
    expected = _ratio(classes * clusters, pairs(table.sum((1, 2))))
    return _ratio(both - expected, (classes + clusters) / 2 - expected, 1.0)


def _matched(table: Floats) -> Floats:
    from scipy.optimize import linear_sum_assignment

    right = [one[linear_sum_assignment(one, maximize=True)].sum() for one in table]
    return _ratio(np.array(right), table.sum((1, 2)))
