"""Probes of frozen features: logistic or ridge regression and k nearest neighbours. No label touches the encoder."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.evaluation.metrics import Floats, Metrics, auc, mean_of, points, r2
from unlabeled.evaluation.nearest import nearest, unit

__all__ = ["Split", "linear_probe"]

Features = NDArray[np.float32]  # [n, D]
Labels = NDArray[Any]  # [n] class numbers (int64) or targets (float64), or [n, C] bool of several labels

PENALTIES = (1.0, 0.1, 10.0, 0.01)
"""Inverse regularisation strengths tried on inner rows; the first, scikit-learn's default, wins a tie."""

THREADED = 2_000_000_000
"""Rows × width × classes from which on threads help a logistic regression; smaller ones they slow down, by a multiple
where the machine has other work."""

FEW_ROWS = 1000
"""Below this a fifth of the training rows says too little, and all of them take turns in five folds."""


@dataclass(frozen=True)
class Split:
    """Features and labels to fit on and to test on."""

    train: Features
    train_labels: Labels
    test: Features
    test_labels: Labels
    far: Features | None = None  # of samples that are neither, for a test of what is out of distribution

    @property
    def regression(self) -> bool:
        return self.train_labels.dtype.kind == "f"


def scaling(x: Features) -> tuple[Features, Features]:
    """Mean and deviation of the columns; 1 where a column says nothing."""
    deviation = x.std(0)
    return x.mean(0), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


def standardised(split: Split) -> Split:
    """Columns scaled by the mean and deviation of the training rows alone."""
    mean, scale = scaling(split.train)
    return Split((split.train - mean) / scale, split.train_labels, (split.test - mean) / scale, split.test_labels)


def linear_probe(split: Split, seed: int) -> dict[str, float]:
    """accuracy, and auc for two classes, or r2 for numbers, of `linear`."""
    return points(linear(split, seed), len(split.test))


def knn_probe(split: Split, k: int = 20, temperature: float = 0.07) -> dict[str, float]:
    """accuracy, or r2 for numbers, of `knn`."""
    return points(knn(split, k, temperature), len(split.test))


def linear(split: Split, seed: int) -> Metrics:
    """Logistic regression (ridge for numbers) on standardised features, by `best_linear`."""
    split = standardised(split)
    return _of_model(best_linear(split, seed), split)


def boosted_trees(split: Split, seed: int) -> Metrics:
    """Gradient-boosted trees on features as they come: what tables are mostly given to."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    model = (HistGradientBoostingRegressor if split.regression else HistGradientBoostingClassifier)(random_state=seed)
    return _of_model(model.fit(split.train, split.train_labels), split)


def _of_model(model: Any, split: Split) -> Metrics:
    """Of a fitted model of scikit-learn."""
    two = not split.regression and len(model.classes_) == 2
    return judged(split.test_labels, model.predict(split.test), model.decision_function(split.test) if two else None)


def best_linear(split: Split, seed: int) -> Any:
    """The model of scikit-learn whose strength is best on inner folds of the training rows, fitted on all of them."""
    from threadpoolctl import threadpool_limits

    outputs = 1 if split.regression else len(np.unique(split.train_labels))
    with threadpool_limits(1 if split.train.size * outputs < THREADED else None):
        return _best_linear(split, seed)


def _best_linear(split: Split, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    x, labels = split.train, split.train_labels

    def fit(model: Any, strength: float, rows: Any) -> Any:
        model.set_params(**({"alpha": 1 / strength} if split.regression else {"C": strength}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lbfgs at its limit: the probe's strength is what validation chooses
            return model.fit(x[rows], labels[rows])

    def new() -> Any:
        return Ridge() if split.regression else LogisticRegression(max_iter=500, warm_start=True)

    turns = folds(labels, seed, split.regression)
    if not turns:
        return fit(new(), PENALTIES[0], slice(None))
    scores = dict.fromkeys(PENALTIES, 0.0)
    tried: dict[float, Any] = {}
    for rows, other in turns:
        model = new()
        if len(turns) == 1 and not split.regression:
            model.set_params(tol=2e-4)  # of many rows, enough to choose by
        for strength in sorted(PENALTIES):  # each starts where the stronger regularisation before it ended
            scores[strength] += fit(model, strength, rows).score(x[other], labels[other])
            tried[strength] = copy(model)
    best = max(PENALTIES, key=scores.__getitem__)
    near = len(turns) == 1 and not split.regression and len(tried[best].classes_) == len(np.unique(labels))
    start = tried[best].set_params(**new().get_params()) if near else new()
    return fit(start, best, slice(None))  # with many rows, from where four fifths of them led


def linear_map(x: Features, labels: Labels, outputs: int, seed: int) -> tuple[Floats, Floats]:
    """Weights [outputs, D] and biases [outputs] of the linear probe, on features as they come.

    Of two classes each has half of the one row that the probe has; a class that no row is of has a low bias.
    """
    mean, scale = scaling(x)
    model = best_linear(Split((x - mean) / scale, labels, x[:0], labels[:0]), seed)
    weight, bias = np.atleast_2d(model.coef_) / scale, np.atleast_1d(model.intercept_)
    bias = bias - weight @ mean
    if labels.dtype.kind == "f":
        return weight, bias
    if len(model.classes_) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    every: tuple[Floats, Floats] = np.zeros((outputs, x.shape[1])), np.full(outputs, bias.min() - 10.0)
    every[0][model.classes_], every[1][model.classes_] = weight, bias
    return every


def judged(truth: Labels, guess: Labels, margin: Floats | None) -> Metrics:
    """accuracy, and auc for two classes; r2 for numbers.

    Args:
        truth, guess: class numbers or numbers [n].
        margin: how much more the second of two classes is thought likely [n].
    """
    if truth.dtype.kind == "f":
        return {"r2": r2(truth, guess)}
    metrics = {"accuracy": mean_of(guess == truth)}
    if margin is not None and len(np.unique(truth)) == 2:
        metrics["auc"] = auc(truth == truth.max(), margin)
    return metrics


def knn(split: Split, k: int = 20, temperature: float = 0.07) -> Metrics:
    """Votes of the k most similar training rows by cosine, weighted by exp(similarity/τ) (arXiv 1805.01978)."""
    split = standardised(split)
    train, test = (unit(torch.from_numpy(x)) for x in (split.train, split.test))
    return judged(split.test_labels, votes(test, train, split.train_labels, min(k, len(train)), temperature), None)


def votes(
    queries: Tensor, keys: Tensor, labels: Labels, k: int, temperature: float = 0.07, *, itself: bool = False
) -> Labels:
    """What the k nearest keys of each query say [q]: the class with most weight, or the weighted mean of numbers.

    Args:
        queries, keys: [q, D], [n, D] unit rows.
        labels: class numbers or numbers [n].
        itself: whether query i is key i, which has no vote.
    """
    known = torch.from_numpy(labels)
    similarity, near = nearest(queries, keys, k + itself)
    if itself:
        own = near == torch.arange(len(near))[:, None]
        own[:, -1] |= ~own.any(1)  # lost among equals: then the last one goes
        similarity, near = (x[~own].view(len(x), k) for x in (similarity, near))
    weight = (similarity / temperature).softmax(1)
    if known.is_floating_point():
        guess = (weight.double() * known[near]).sum(1)
    else:
        guess = torch.zeros(len(queries), int(known.max()) + 1).scatter_add_(1, known[near], weight).argmax(1)
    return guess.numpy()


def folds(labels: Labels, seed: int, regression: bool) -> list[tuple[Labels, Labels]]:
    """Rows to fit and rows to choose by, classes in proportion; none where rows are too few to spare any.

    Four fifths and one of many rows; five turns of that with fewer than FEW_ROWS.
    """
    from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

    rows = np.arange(len(labels))
    counts = np.array([len(rows) // 2]) if regression else np.unique(labels, return_counts=True)[1]
    if len(rows) >= FEW_ROWS:
        stratify = None if regression or counts.min() < 2 or len(counts) > -(-len(rows) // 5) else labels
        fit, other = train_test_split(rows, test_size=0.2, random_state=seed, stratify=stratify)
        return [(fit, other)]
    turns = min(5, int(counts.max()))
    if turns < 2:
        return []
    kind = KFold if regression else StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer rows than folds is in the turns of some
        found = list(kind(turns, shuffle=True, random_state=seed).split(rows, labels))
    return [(fit, other) for fit, other in found if regression or len(np.unique(labels[fit])) > 1]
