"""Trained runs beside their mandatory baselines: the same encoder untrained, and the data with no encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unlabeled.errors import UserError, choose
from unlabeled.evaluation.clustering import kmeans
from unlabeled.evaluation.features import Source, frozen, raw
from unlabeled.evaluation.intervals import summarise
from unlabeled.evaluation.labels import Form
from unlabeled.evaluation.metrics import Metrics
from unlabeled.evaluation.multilabel import one_vs_rest
from unlabeled.evaluation.ood import mahalanobis, neighbour
from unlabeled.evaluation.probes import Split, boosted_trees, knn, linear
from unlabeled.evaluation.results import TREES, Result, Row
from unlabeled.evaluation.retrieval import among_test, in_train
from unlabeled.evaluation.shots import ALL
from unlabeled.evaluation.tasks import Study, Task, prepare
from unlabeled.files import absolute
from unlabeled.saved import load

__all__ = ["evaluate"]

FRESH = 1000
"""First seed of untrained encoders, away from those of training."""

Probe = Callable[[Split, int], Metrics]  # of features and a seed


@dataclass(frozen=True)
class Protocol:
    """What frozen features are judged by."""

    probes: Mapping[str, Probe]
    form: Form = "any"  # of the labels
    of_columns: Mapping[str, Probe] = field(default_factory=dict)  # of raw features alone, of tables


PROTOCOLS: Mapping[str, Protocol] = {
    "probe": Protocol({"linear": linear, "knn": lambda split, seed: knn(split)}, of_columns={TREES: boosted_trees}),
    "linear": Protocol({"linear": linear}, of_columns={TREES: boosted_trees}),
    "knn": Protocol({"knn": lambda split, seed: knn(split)}),
    "retrieval": Protocol({"among test": among_test, "in train": in_train}, "classes"),
    "clustering": Protocol({"k-means": kmeans}, "classes"),
    "ood": Protocol({"mahalanobis": mahalanobis, "neighbour": neighbour}, "none"),
    "multilabel": Protocol({"linear": one_vs_rest}, "several"),
}


def evaluate(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str | None = None,
    protocol: str = "probe",
    test: str | None = None,
    seeds: int | Sequence[int] = 3,
    groups: str | None = None,
    folds: int | None = None,
    shots: Sequence[str | int] = (ALL,),
    ood: str | None = None,
    baselines: bool = True,
    device: torch.device | None = None,
) -> Result:
    """Probe runs of one domain and encoder, the encoder untrained, and raw features.

    Args:
        runs: run folders, say one a pre-training seed; each is probed with every seed.
        train, test: data for the probe; without test a fifth of train is kept for it, another one each seed.
        label: what the reader calls the label; ood may do without.
        protocol: a name of PROTOCOLS; fine-tuning is a function of its own.
        seeds: of the untrained encoder, of inner folds, of the rows of `shots`, and of the split where there is no
            test; how many, or which.
        groups: what the reader calls the group of a row (speaker, patient, place): each group in turn is what the
            probe is tested on, and fitted on all others.
        folds: into how many parts the rows are cut, each tested on in turn, classes in proportion; the first of the
            seeds is that of the cut.
        shots: how many labels the probes are given, one after another: a share ("1%") or rows a class ("10"). They
            are the same rows for all features, so that differences are paired.
        ood: for the protocol ood, data of another kind.
        baselines: measure the untrained encoder and raw features too; no only where they stand beside it already.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    chosen = choose("protocol", protocol, PROTOCOLS)
    if bool(ood) != (protocol == "ood"):
        raise UserError("--protocol ood needs samples of another kind, --ood DATA, and no other protocol does")
    common: dict[str, Any] = {
        "label": label,
        "test": test,
        "seeds": seeds,
        "groups": groups,
        "folds": folds,
        "shots": shots,
    }
    study = prepare(runs, train, form=chosen.form, ood=ood, **common)
    rows, features = [], features_of(study, baselines, device)
    for name, sources in features.items():
        more = chosen.of_columns if name == "raw" and study.reader.boosted else {}
        rows += probe(name, study.tasks, sources, {**chosen.probes, **more})
    same = features.get("raw", features[study.name])[0][0]
    return study.result(protocol, rows, same, ood=absolute(ood) if ood else None, baselines=baselines)


def features_of(study: Study, baselines: bool, device: torch.device | None) -> dict[str, list[list[Source]]]:
    """For each kind of features its runs; a run is the source of features for each task."""
    count, one = len(next(iter(study.tasks.values()))), study.saved[0]
    trained = [frozen(load(run), what, device) for run, what in zip(study.runs, study.saved, strict=True)]
    found = {study.name: [[source] * count for source in trained]}
    if baselines:
        fresh = [frozen(one.make_encoder(FRESH + seed), one, device) for seed in study.seeds]
        found["untrained"] = [[source] * count for source in fresh] if study.groups else [fresh]
        plain = raw(study.reader)
        if plain is not None:
            found["raw"] = [[plain] * count]
    return found


def probe(
    name: str,
    tasks: Mapping[str, Sequence[Task]],
    runs: Sequence[Sequence[Source]],
    probes: Mapping[str, Probe],
) -> list[Row]:
    """Rows of every probe and metric for each part of the labels; a run is the source of features for each task."""
    rows: list[Row] = []
    for shots, mine in tasks.items():
        pairs = [(source, task) for run in runs for source, task in zip(run, mine, strict=True)]
        splits = [task.split(source) for source, task in pairs]
        for kind, judge in probes.items():
            judged = [(task.items, judge(split, task.seed)) for split, (_, task) in zip(splits, pairs, strict=True)]
            rows += summarise((name, kind), judged, shots, len(mine[0].train_rows))
    return rows
