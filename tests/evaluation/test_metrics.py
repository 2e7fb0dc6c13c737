"""Metrics against scikit-learn at every resample, and intervals against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from unlabeled.evaluation.intervals import intervals
from unlabeled.evaluation.metrics import (
    Metric,
    auc,
    average_precision,
    fpr_at,
    macro,
    mean_of,
    partition_metrics,
    points,
    r2,
)

RANDOM = np.random.default_rng(0)
N = 60
TRUTH = RANDOM.integers(0, 2, N)
SCORE = np.round(TRUTH + RANDOM.normal(size=N), 1)  # rounded, so that there are ties
NUMBERS = RANDOM.normal(5, 2, N)
GUESS = NUMBERS + RANDOM.normal(size=N)
CLASSES, CLUSTERS = RANDOM.integers(0, 3, N), RANDOM.integers(0, 4, N)


@pytest.fixture(autouse=True)
def _again() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    RANDOM.bit_generator.state = np.random.default_rng(2).bit_generator.state


def naive_fpr95(truth: Any, score: Any) -> float:
    """The least share of negatives above a threshold that 95 % of the positives pass."""
    passing = [t for t in np.unique(score) if (score[truth == 1] >= t).mean() >= 0.95]
    return float((score[truth == 0] >= max(passing)).mean())


def naive_matching(truth: Any, found: Any) -> float:
    names = [*range(3), -1]  # four clusters, three classes: one cluster is of none
    return max(float((np.array(order)[found] == truth).mean()) for order in permutations(names))


PARTITION = partition_metrics(CLASSES, CLUSTERS)
CASES: dict[str, tuple[Metric, Callable[[Any], float]]] = {
    "accuracy": (mean_of((SCORE > 0.5) == TRUTH), lambda i: sk.accuracy_score(TRUTH[i], SCORE[i] > 0.5)),
    "r2": (r2(NUMBERS, GUESS), lambda i: sk.r2_score(NUMBERS[i], GUESS[i])),
    "auc": (auc(TRUTH, SCORE), lambda i: sk.roc_auc_score(TRUTH[i], SCORE[i])),
    "ap": (average_precision(TRUTH, SCORE), lambda i: sk.average_precision_score(TRUTH[i], SCORE[i])),
    "fpr95": (fpr_at(TRUTH, SCORE), lambda i: naive_fpr95(TRUTH[i], SCORE[i])),
    "nmi": (PARTITION["nmi"], lambda i: sk.normalized_mutual_info_score(CLASSES[i], CLUSTERS[i])),
    "ari": (PARTITION["ari"], lambda i: sk.adjusted_rand_score(CLASSES[i], CLUSTERS[i])),
    "matched": (PARTITION["accuracy"], lambda i: naive_matching(CLASSES[i], CLUSTERS[i])),
}


@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_the_fields_at_every_resample(name: str) -> None:
    metric, naive = CASES[name]
    counts = RANDOM.poisson(1.0, (12, N))
    counts[0] = 1
    found = metric(counts.astype(float))
    assert found.shape == (12,)
    for value, count in zip(found, counts, strict=True):
        assert value == pytest.approx(naive(np.repeat(np.arange(N), count)), abs=1e-9)
    assert points({"it": metric}, N)["it"] == found[0]


def test_what_has_no_value_is_nan_or_left_out() -> None:
    only_positive = (TRUTH == 1)[None].astype(float)
    for metric in (auc(TRUTH, SCORE), fpr_at(TRUTH, SCORE), average_precision(1 - TRUTH, SCORE)):
        assert np.isnan(metric(only_positive)).all()
    assert mean_of(np.array([1.0, np.nan, 0.0]))(np.ones((1, 3))) == 0.5
    none, some = average_precision(np.zeros(N), SCORE), average_precision(TRUTH, SCORE)
    weights = np.ones((2, N))
    assert (macro([none, some])(weights) == some(weights)).all()
    assert r2(np.ones(4), np.arange(4.0))(np.ones((1, 4))) == 0, "of equal numbers nothing is explained"


def test_partitions_at_their_ends() -> None:
    same = partition_metrics(CLASSES, (CLASSES + 1) % 3)
    assert points(same, N) == {"nmi": pytest.approx(1), "ari": pytest.approx(1), "accuracy": 1}
    one = points(partition_metrics(CLASSES, np.zeros(N, int)), N)
    assert one["nmi"] == pytest.approx(0, abs=1e-12)
    assert one["ari"] == pytest.approx(0, abs=1e-12)
    assert one["accuracy"] == np.bincount(CLASSES).max() / N


def test_an_interval_is_that_of_the_binomial() -> None:
    right = np.repeat([1.0, 0.0], [320, 80])
    span = intervals([([np.arange(400)], {"accuracy": mean_of(right)})])["accuracy"]
    error = (0.8 * 0.2 / 400) ** 0.5
    assert span == pytest.approx((0.8 - 1.96 * error, 0.8 + 1.96 * error), abs=0.2 * error)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        x = np.random.default_rng(seed).random(100) < 0.7
        span = intervals([([np.arange(100)], {"accuracy": mean_of(x)})])["accuracy"]
        assert span is not None
        held += span[0] <= 0.7 <= span[1]
    assert 0.9 <= held / 200 <= 0.98


def test_seeds_on_the_same_items_say_no_more_about_items() -> None:
    """Twice the same test is one test; two halves of the items are all of them."""
    x = RANDOM.random(200) < 0.7
    rows = np.arange(200)
    once = intervals([([rows], {"accuracy": mean_of(x)})])
    shuffled = RANDOM.permutation(200)
    again = intervals([([rows], {"accuracy": mean_of(x)}), ([shuffled], {"accuracy": mean_of(x[shuffled])})])
    assert again["accuracy"] == pytest.approx(once["accuracy"])
    halves = intervals([([part], {"accuracy": mean_of(x[part])}) for part in (rows[:100], rows[100:])])
    assert halves["accuracy"] == pytest.approx(once["accuracy"], abs=0.01)


def test_two_data_sets_are_resampled_apart_and_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = np.repeat([True, False], 50)
    judged = [([np.arange(50), np.arange(50)], {"auroc": auc(inside, inside + RANDOM.normal(size=100))})]
    span = intervals(judged)["auroc"]
    assert span is not None
    assert 0.05 < span[1] - span[0] < 0.3
    monkeypatch.setattr("unlabeled.evaluation.intervals.AT_ONCE", 700)
    assert intervals(judged)["auroc"] == pytest.approx(span, abs=0), "chunks draw the same counts"


def test_no_value_in_any_resample_is_no_interval() -> None:
    assert intervals([([np.arange(3)], {"auc": auc(np.ones(3), np.arange(3.0))})]) == {"auc": None}
