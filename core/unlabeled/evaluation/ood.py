"""Out-of-distribution detection: whether samples of another kind are further from the training samples than test ones.

auroc: how often a far sample is the further one. fpr95: the share of far samples that pass where 95 % of the test
samples do. Nothing is fitted to far samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from unlabeled.evaluation.metrics import Floats, Metrics, auc, fpr_at
from unlabeled.evaluation.nearest import nearest, unit
from unlabeled.evaluation.probes import Features, Split

NEIGHBOUR = 10


def mahalanobis(split: Split, seed: int) -> Metrics:
    """By distance to the nearest class mean under the covariance that the classes share (arXiv 1807.03888).

    The covariance is shrunk as far as the number of samples asks (Ledoit and Wolf, 2004). Without classes there is one
    mean.
    """
    from sklearn.covariance import LedoitWolf

    labels = np.zeros(len(split.train), np.int64) if split.regression else split.train_labels
    train = split.train.astype(np.float64)
    classes, of = np.unique(labels, return_inverse=True)
    means = np.stack([train[of == number].mean(0) for number in range(len(classes))])
    precision = LedoitWolf(assume_centered=True).fit(train - means[of]).precision_

    def distance(x: Features) -> Floats:
        each = [(((x - mean) @ precision) * (x - mean)).sum(1) for mean in means]
        nearest: Floats = np.min(each, axis=0)
        return nearest

    return _metrics(split, distance)


def neighbour(split: Split, seed: int) -> Metrics:
    """By cosine distance to the tenth nearest training sample (arXiv 2204.06507)."""
    train = unit(torch.from_numpy(split.train))
    k = min(NEIGHBOUR, len(train))

    def distance(x: Features) -> Floats:
        kth: Floats = -nearest(unit(torch.from_numpy(x)), train, k)[0][:, -1].double().numpy()
        return kth

    return _metrics(split, distance)


def _metrics(split: Split, distance: Callable[[Features], Floats]) -> Metrics:
    assert split.far is not None, "a task of this protocol has far samples"
    near, far = distance(split.test), distance(split.far)
    inside = np.repeat([True, False], [len(near), len(far)])
    score = -np.concatenate([near, far])
    return {"auroc": auc(inside, score), "fpr95": fpr_at(inside, score)}
