"""Retrieval: how near samples of the same class are, by cosine, with nothing fitted."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.errors import UserError
from unlabeled.evaluation.metrics import Metrics, mean_of
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
    q, g = (torch.nn.functional.normalize(torch.from_numpy(x), dim=-1) for x in (queries, gallery))
    right = torch.from_numpy(labels)
    found = []
    for rows in torch.arange(len(q)).split(max(1, AT_ONCE // len(g))):
        similarity = q[rows] @ g.T
        if itself:
            similarity[torch.arange(len(rows)), rows] = -torch.inf
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, : len(g) - itself]
        found.append(_scores(right[order] == torch.from_numpy(wanted)[rows][:, None]))
    values = torch.cat(found).numpy()
    if not (values == values).any():
        raise UserError("no test sample has another of its class to retrieve; give more labelled samples")
    names = ["map", *(f"recall@{k}" for k in RECALLS)]
    return {name: mean_of(values[:, at]) for at, name in enumerate(names)}


def _scores(relevant: Tensor) -> Tensor:
    """Average precision and recalls [q, 1 + len(RECALLS)] of rankings [q, g] bool; NaN where nothing is relevant."""
    count = relevant.sum(1, dtype=torch.float64)
    places = torch.arange(1, relevant.shape[1] + 1)
    precision = (relevant.cumsum(1) / places * relevant).sum(1, dtype=torch.float64) / count
    hits = [torch.where(count > 0, relevant[:, :k].any(1).double(), torch.nan) for k in RECALLS]
    return torch.stack([precision, *hits], 1)
