"""What frozen tokens know of their places: a linear probe, beside untrained tokens and their raw content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.contract import Encoder, Reader, Tokens, to_device
from unlabeled.embedding import tokens_of, valid_tokens, whole_batches
from unlabeled.errors import UserError
from unlabeled.evaluation.evaluate import FRESH
from unlabeled.evaluation.features import Source, frozen, once, raw
from unlabeled.evaluation.intervals import summarise
from unlabeled.evaluation.metrics import Metrics, of_places
from unlabeled.evaluation.probes import Features, Labels, Split, best_linear, scaling
from unlabeled.evaluation.results import Result
from unlabeled.evaluation.shots import ALL
from unlabeled.evaluation.tasks import Study, Task, prepare
from unlabeled.saved import Saved, load

__all__ = ["dense"]

MOST = 20_000  # tokens that a probe is fitted on; more of one sample say little that is new


@dataclass(frozen=True)
class Places:
    """Tokens whose place has a label, of all samples one after another."""

    values: Features  # [T, D]
    names: NDArray[np.str_]  # [T] classes
    samples: Labels  # [T] whose token it is


Dense = Callable[[Reader], Places]


def dense(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str | None = None,
    test: str | None = None,
    seeds: int | Sequence[int] = 3,
    groups: str | None = None,
    folds: int | None = None,
    shots: Sequence[str | int] = (ALL,),
    device: torch.device | None = None,
) -> Result:
    """Probe the tokens of runs, of the encoder untrained, and their raw content, by labels of places.

    A token has the label of its middle. Samples, never tokens of one, are shared out between training and test. A
    probe is fitted on all labelled tokens of its samples, or MOST of them by chance. accuracy counts tokens; iou and
    f1 are means over the classes that are there or said. Intervals are over resamples of samples.

    Args:
        runs, train, test, seeds, groups, shots, device: as those of `unlabeled.evaluation.evaluate.evaluate`; shots are
            shares of the labelled samples.
        label: what the reader calls the labels of places: masks or a table beside the data, mostly.

    Raises:
        UserError: no sample has labels of places, an encoder has no tokens, or one class only.
    """
    study = prepare(
        runs,
        train,
        label=label,
        test=test,
        seeds=seeds,
        groups=groups,
        folds=folds,
        shots=shots,
        form="places",
    )
    place, one = device or torch.device("cpu"), study.saved[0]
    tasks = next(iter(study.tasks.values()))
    content = once(lambda reader: _places(None, one, reader, str(label), place))
    trained = [once(_frozen(load(run), what, str(label), place)) for run, what in zip(runs, study.saved, strict=True)]
    fresh = {
        seed: once(_frozen(one.make_encoder(FRESH + seed), one, str(label), place))
        for seed in sorted({task.seed for task in tasks})  # groups have one
    }
    classes = np.unique(content(study.reader).names)
    if len(classes) < 2:
        raise UserError(f"all places are of one class ({classes[0]}); a probe needs two")
    rows, shares = [], []
    for shot, mine in study.tasks.items():
        for name, sources in (
            (study.name, [(source, task) for source in trained for task in mine]),
            ("untrained", [(fresh[task.seed], task) for task in mine]),
            ("raw", [(content, task) for task in mine]),
        ):
            judged = [(task.items, _judged(source, task, classes)) for source, task in sources]
            rows += summarise((name, "linear tokens"), judged, shot, len(mine[0].train_rows))
    for task in tasks:
        fit, other = (_of(content(reader), chosen) for reader, chosen in _sides(task))
        names, counts = np.unique(fit.names, return_counts=True)
        shares.append(float((other.names == names[counts.argmax()]).mean()))
    same: Source = raw(study.reader) or frozen(load(runs[0]), one, device)
    known: Study = replace(study, majority=float(np.mean(shares)))
    return known.result("dense", rows, same)


def _sides(task: Task) -> tuple[tuple[Reader, Labels], tuple[Reader, Labels]]:
    return (task.train, task.train_rows), (task.test, task.test_rows)


def _of(places: Places, samples: Labels) -> Places:
    """Those of some samples."""
    kept = np.isin(places.samples, samples)
    return Places(places.values[kept], places.names[kept], places.samples[kept])


def _judged(source: Dense, task: Task, classes: NDArray[np.str_]) -> Metrics:
    fit, other = (_of(source(reader), rows) for reader, rows in _sides(task))
    strangers = np.setdiff1d(other.names, classes)
    if len(strangers):
        raise UserError(
            f"places of the test data are of class {str(strangers[0])!r}, which the training data do not have"
        )
    if len(np.unique(fit.names)) < 2:
        raise UserError(f"all places to fit on are of class {fit.names[0]!r} with seed {task.seed}; give more samples")
    chosen: Labels = np.arange(len(fit.names))
    if len(chosen) > MOST:
        chosen = np.sort(np.random.default_rng(task.seed).choice(len(chosen), MOST, replace=False))
    mean, scale = scaling(fit.values[chosen])
    numbers = np.searchsorted(classes, fit.names[chosen])
    none = np.empty((0, fit.values.shape[1]), np.float32)
    model = best_linear(Split((fit.values[chosen] - mean) / scale, numbers, none, numbers[:0]), task.seed)
    guess = model.predict((other.values - mean) / scale)
    order = np.argsort(task.test_rows)
    owner = order[np.searchsorted(task.test_rows[order], other.samples)]
    return of_places(np.searchsorted(classes, other.names), guess, owner, len(classes), len(task.test_rows))


def _frozen(encoder: Encoder, saved: Saved, label: str, device: torch.device) -> Dense:
    return lambda reader: _places(encoder.eval().to(device), saved, reader, label, device)


@torch.no_grad()
def _places(encoder: Encoder | None, saved: Saved, reader: Reader, label: str, device: torch.device) -> Places:
    """Of all samples that can be read and have labels; without an encoder tokens' own content."""
    cutter = saved.make_encoder(0).to(device) if encoder is None else encoder
    values, names, samples = [], [], []
    for numbers, batch, _ in whole_batches(
        reader, saved.make_view(), saved.registry, torch.arange(len(reader)), reader.embed_batch
    ):
        if not batch:
            continue
        tokens: Tokens = cutter.tokenize(to_device(batch, device))
        order, counts = valid_tokens(tokens)
        ends = counts.cumsum(0)[:-1].tolist()
        content = tokens.values if encoder is None else tokens_of(encoder, tokens)
        where = tokens.coords if tokens.where is None else tokens.where
        each = (np.split(x.flatten(0, 1)[order].float().cpu().numpy(), ends) for x in (where, content))
        for index, spot, value in zip(numbers.tolist(), *each, strict=True):
            told = reader.labels_at(label, index, spot)
            if told is None:
                continue
            good = (told != "") & ((spot >= 0) & (spot <= 1)).all(1)
            values.append(value[good])
            names.append(told[good])
            samples.append(np.full(int(good.sum()), index))
    if not names or not sum(map(len, names)):
        raise UserError(f"no place of {reader.name(0)} and the others has a label {label!r}")
    return Places(np.concatenate(values), np.concatenate(names).astype(str), np.concatenate(samples))
