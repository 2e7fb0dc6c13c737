"""Several labels a sample: a logistic regression for each of them, judged by mean average precision."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from unlabeled.evaluation.metrics import Floats, Metrics, Weights, average_precision, macro, points
from unlabeled.evaluation.probes import PENALTIES, Features, Labels, Split, folds, standardised


def one_vs_rest(split: Split, seed: int) -> Metrics:
    """map_micro and map_macro; the strength that all share is chosen on inner folds of the training rows by map_micro.

    Args:
        split: whose labels are bool [n, C].
    """
    split = standardised(split)
    turns = folds(np.zeros(len(split.train)), seed, True)

    def tried(strength: float) -> float:
        found = []
        for fit, other in turns:
            model = _fit(split.train[fit], split.train_labels[fit], strength)
            made = mean_average_precision(split.train_labels[other], _say(model, split.train[other]))
            found.append(points(made, len(other))["map_micro"])
        return float(np.mean(found))

    best = max(PENALTIES, key=tried) if turns else PENALTIES[0]
    return mean_average_precision(split.test_labels, _say(_fit(split.train, split.train_labels, best), split.test))


def mean_average_precision(truth: Labels, score: Floats) -> Metrics:
    """Over all pairs of sample and label (micro), and the mean over labels that occur (macro); both [n, C]."""
    pairs = average_precision(truth.ravel(), score.ravel())

    def micro(weights: Weights) -> Floats:  # one resample at a time: there are C pairs a sample
        return np.concatenate([pairs(np.repeat(one[None], truth.shape[1], axis=1)) for one in weights])

    each = [average_precision(truth[:, at], score[:, at]) for at in range(truth.shape[1])]
    return {"map_micro": micro, "map_macro": macro(each)}


def _fit(x: Features, labels: Labels, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that all or none of these rows have; lbfgs at its limit
        return OneVsRestClassifier(LogisticRegression(C=strength, max_iter=500)).fit(x, labels.astype(np.int64))


def _say(model: Any, x: Features) -> Floats:
    """[n, C]; scikit-learn drops the second axis where there is one label."""
    out: Floats = np.asarray(model.decision_function(x), np.float64).reshape(len(x), -1)
    return out
