"""Retrieval: how near samples of the same class are, by cosine, with nothing fitted."""

from __future__ import annotations

import numpy as np
import torch

from unlabeled.errors import UserError
from unlabeled.evaluation.metrics import Metrics, mean_of
from unlabeled.evaluation.nearest import unit
from unlabeled.evaluation.probes import Features, Labels, Split

RECALLS = (1, 5)
AT_ONCE = 8_000_000  # similarities in memory


def among_test(split: Split, seed: int) -> Metrics:
    """Each test sample asks for the others of its class among the test samples."""
    return ranked(split.test, split.test_labels, split.test, split.test_labels, itself=True)


def in_train(split: Split, seed: int) -> Metrics:
    """Each test sample asks for those of its class among the training samples."""
    return ranked(split.test, split.test_labels, split.train, split.train_labels, itself=False)


def ranked(queries: Features, wanted: Labels, gallery: Features, labels: Labels, *, itself: bool) -> Metrics:
    """map: the mean of average precision over the whole ranking; recall@k: whether one of the k nearest is right.

    Queries with nothing to find are left out.

    Args:
        queries, gallery: features [q, D], [g, D].
        wanted, labels: class numbers of both.
        itself: whether query i is sample i of the gallery, which does not count.

    Raises:
        UserError: no query has anything to find.
    """
    q, g = (unit(torch.from_numpy(x)) for x in (queries, gallery))
    found = []
    for rows in torch.arange(len(q)).split(max(1, AT_ONCE // len(g))):
        similarity = q[rows] @ g.T
        if itself:
            similarity[torch.arange(len(rows)), rows] = -torch.inf
        for row, scores in zip(rows.tolist(), similarity.numpy(), strict=True):
            right = labels == wanted[row]
            if itself:
                right[row] = False
            found.append(_of_one(scores, scores[right]))
    values = np.array(found)
    if np.isnan(values).all():
        raise UserError("no test sample has another of its class to retrieve; give more labelled samples")
    names = ["map", *(f"recall@{k}" for k in RECALLS)]
    return {name: mean_of(values[:, at]) for at, name in enumerate(names)}


def _of_one(scores: Features, right: Features) -> list[float]:
    """Average precision and recalls of a query, by the scores of all and of the right ones; NaN where none is right.

    Sorting numbers is many times faster than sorting places: the rank of a right one is how many score no less.
    """
    if not len(right):
        return [np.nan] * (1 + len(RECALLS))
    scores, right = np.sort(scores), np.sort(right)
    among_all = len(scores) - np.searchsorted(scores, right)
    among_right = len(right) - np.searchsorted(right, right)
    better = len(scores) - np.searchsorted(scores, right[-1], "right")
    return [float((among_right / among_all).mean()), *(float(better < k) for k in RECALLS)]
