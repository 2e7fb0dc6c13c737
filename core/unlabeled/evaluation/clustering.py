"""Clustering: whether k-means finds the classes, with no label used but to count them."""

from __future__ import annotations

import warnings

import numpy as np

from unlabeled.errors import UserError
from unlabeled.evaluation.metrics import Metrics, partition_metrics
from unlabeled.evaluation.probes import Split


def kmeans(split: Split, seed: int) -> Metrics:
    """nmi, ari and accuracy of the best of ten k-means on the test samples, k their number of classes.

    Raises:
        UserError: they are all of one class.
    """
    from sklearn.cluster import KMeans

    classes, truth = np.unique(split.test_labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError("the test samples are of one class, and clusters need two; give more labelled samples")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct samples than classes: then clusters are empty
        found = KMeans(len(classes), n_init=10, random_state=seed).fit_predict(split.test)
    return partition_metrics(truth, found.astype(np.int64))
