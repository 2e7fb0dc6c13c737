"""Trained runs beside their mandatory baselines: the same encoder untrained, and the data with no encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from unlabeled.errors import choose
from unlabeled.evaluation.features import Source, frozen, raw
from unlabeled.evaluation.probes import Split, knn_probe, linear_probe
from unlabeled.evaluation.results import Result, Row
from unlabeled.evaluation.shots import ALL
from unlabeled.evaluation.tasks import Study, Task, prepare
from unlabeled.saved import load

FRESH = 1000
"""First seed of untrained encoders, away from those of training."""

Probe = Callable[[Split, int], dict[str, float]]  # of features and a seed

PROBES: Mapping[str, Probe] = {
    "linear": lambda split, seed: linear_probe(split, seed),
    "knn": lambda split, seed: knn_probe(split),
}

PROTOCOLS: Mapping[str, tuple[str, ...]] = {"probe": ("linear", "knn"), "linear": ("linear",), "knn": ("knn",)}
"""The protocols of frozen features, and the probes that each is made of."""


def evaluate(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str,
    protocol: str = "probe",
    test: str | None = None,
    seeds: int | Sequence[int] = 3,
    groups: str | None = None,
    shots: Sequence[str | int] = (ALL,),
    baselines: bool = True,
    device: torch.device | None = None,
) -> Result:
    """Probe runs of one domain and encoder, the encoder untrained, and raw features.

    Args:
        runs: run folders, say one a pre-training seed; each is probed with every seed.
        train, test: data for the probe; without test a fifth of train is kept for it, another one each seed.
        label: what the reader calls the label.
        protocol: probe (linear and k-NN), or one of them alone; `unlabeled.evaluation.finetune` is another function.
        seeds: of the untrained encoder, of inner folds, of the rows of `shots`, and of the split where there is no
            test; how many, or which.
        groups: what the reader calls the group of a row (speaker, patient, place): each group in turn is what the
            probe is tested on, and fitted on all others.
        shots: how many labels the probes are given, one after another: a share ("1%") or rows a class ("10"). They
            are the same rows for all features, so that differences are paired.
        baselines: measure the untrained encoder and raw features too; no only where they stand beside it already.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data.
    """
    probes = choose("protocol", protocol, PROTOCOLS)
    study = prepare(runs, train, label=label, test=test, seeds=seeds, groups=groups, shots=shots)
    rows = []
    for name, sources in features_of(study, baselines, device).items():
        rows += probe(name, study.tasks, sources, probes)
    return study.result(rows)


def features_of(study: Study, baselines: bool, device: torch.device | None) -> dict[str, list[list[Source]]]:
    """For each kind of features its runs; a run is the source of features for each task."""
    count, one = len(next(iter(study.tasks.values()))), study.saved[0]
    trained = [frozen(load(run), what, device) for run, what in zip(study.runs, study.saved, strict=True)]
    found = {study.name: [[source] * count for source in trained]}
    if baselines:
        fresh = [frozen(one.make_encoder(FRESH + seed), one, device) for seed in study.seeds]
        found["untrained"] = [[source] * count for source in fresh] if study.groups else [fresh]
        if study.reader.raw() is not None:
            found["raw"] = [[raw] * count]
    return found


def probe(
    name: str, tasks: Mapping[str, Sequence[Task]], runs: Sequence[Sequence[Source]], probes: Sequence[str]
) -> list[Row]:
    """Rows of every probe and metric for each part of the labels; a run is the source of features for each task."""
    rows: list[Row] = []
    for shots, mine in tasks.items():
        found: dict[tuple[str, str], list[float]] = {}
        for source, task in [pair for run in runs for pair in zip(run, mine, strict=True)]:
            split = task.split(source)
            for kind in probes:
                for metric, value in PROBES[kind](split, task.seed).items():
                    found.setdefault((kind, metric), []).append(value)
        n = len(mine[0].train_rows)
        rows += [Row(name, *what, tuple(values), shots, n) for what, values in found.items()]
    return rows
