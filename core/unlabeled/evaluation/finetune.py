"""Fine-tuning: an encoder and a linear head trained end to end on labels, beside the same model from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Batch, Encoder, Reader, to_device
from unlabeled.data.batches import Batches, Order, finish, loader
from unlabeled.embedding import whole_batches
from unlabeled.errors import UserError, choose
from unlabeled.evaluation.evaluate import FRESH, probe
from unlabeled.evaluation.features import Source, frozen, raw
from unlabeled.evaluation.intervals import summarise
from unlabeled.evaluation.metrics import Metrics, points
from unlabeled.evaluation.probes import Features, Labels, judged, linear, linear_map
from unlabeled.evaluation.results import Result, Row
from unlabeled.evaluation.shots import ALL
from unlabeled.evaluation.tasks import Study, Task, prepare, proportions
from unlabeled.precision import PRECISIONS, Precision, autocast
from unlabeled.saved import Saved, load
from unlabeled.schedules import warmup_cosine

__all__ = ["Budget", "finetune"]

SCRATCH = "from scratch"

LEAST_STEPS = 100
"""Fewer than this teach a head nothing, however often so few rows were seen."""


@dataclass(frozen=True)
class Budget:
    """How a model is fine-tuned. Each field is a flag of `evaluate --protocol finetune`.

    Args:
        epochs: passes over the labelled rows, or as many as make a hundred steps.
        batch_size: rows a step.
        lrs: peak rates of the head that are tried; the best on a fifth of the training rows is taken, the first wins a
            tie.
        encoder_rate: the pre-trained encoder's rate as a share of the head's; from scratch it is the head's own.
        weight_decay: AdamW's, on matrices.
        views: the kind of view trained on: plain (close to the data) or global (augmented); tests are on whole samples.
        precision: of forward passes: fp32, or bf16 autocast.
        workers: loader processes; their number changes no result.
    """

    epochs: int = 20
    batch_size: int = 64
    lrs: tuple[float, ...] = (1e-3, 3e-4, 3e-3)
    encoder_rate: float = 0.1
    weight_decay: float = 0.01
    views: Literal["plain", "global"] = "plain"
    precision: Precision = "fp32"
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 2, "workers": 0}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        object.__setattr__(self, "lrs", tuple(self.lrs))  # flags and YAML give a list
        if not self.lrs or min(self.lrs) <= 0:
            raise UserError(f"lrs are learning rates above 0, not {', '.join(map(str, self.lrs)) or 'none'}")
        if not 0 <= self.encoder_rate <= 1 or self.weight_decay < 0:
            raise UserError("encoder_rate is a share of the head's rate, from 0 to 1, and weight_decay not below 0")
        choose("views", self.views, {"plain": 1, "global": 1})
        choose("precision", self.precision, PRECISIONS)


def finetune(
    runs: Sequence[str | Path],
    train: str,
    *,
    label: str,
    test: str | None = None,
    seeds: int | Sequence[int] = 3,
    groups: str | None = None,
    folds: int | None = None,
    shots: Sequence[str | int] = (ALL,),
    budget: Budget | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Fine-tune runs of one domain and encoder, beside the same model from scratch and the runs' frozen linear probe.

    Args:
        runs, train, label, test, seeds, groups, shots: as of `unlabeled.evaluation.evaluate.evaluate`.
        budget: of every training, the same for all.
        say: told of every training.

    Raises:
        UserError: labels that do not fit, an encoder of another domain, unreadable data, rates that all diverge.
    """
    study = prepare(runs, train, label=label, test=test, seeds=seeds, groups=groups, folds=folds, shots=shots)
    tuner = Tuner(study.saved[0], budget or Budget(), device or torch.device("cpu"))
    sources = [frozen(load(run), what, device) for run, what in zip(study.runs, study.saved, strict=True)]
    trained = [Start(partial(load, run), source) for run, source in zip(study.runs, sources, strict=True)]
    rows: list[Row] = []
    for shot, tasks in study.tasks.items():
        for name, starts in (
            (study.name, [(start, task) for start in trained for task in tasks]),
            (SCRATCH, _scratch(study, tasks)),
        ):
            found = []
            for start, task in starts:
                found.append(tuner.run(start, task))
                say(f"{name}, {_about(shot, task, found[-1])}")
            rates = tuple(one.rate for one in found)
            measured = [(one.items, one.metrics) for one in found]
            rows += summarise((name, "finetune"), measured, shot, len(tasks[0].train_rows), rates)
        rows += probe(study.name, {shot: tasks}, [[source] * len(tasks) for source in sources], {"linear": linear})
    asked = {**asdict(tuner.budget), "workers": None}  # which change no result
    return study.result("finetune", rows, raw(study.reader) or sources[0], budget=asked)


@dataclass(frozen=True)
class Start:
    """What a model is fine-tuned from."""

    make: Callable[[], Encoder]  # a fresh copy of the encoder
    features: Source | None = None  # of a pre-trained one, frozen: its head starts as the probe of them, and it learns
    # slower than the head; None: all of it starts by chance


def _scratch(study: Study, tasks: Sequence[Task]) -> list[tuple[Start, Task]]:
    """Every untrained encoder with the task of its seed, or with all of them where they are groups."""
    one = study.saved[0]
    return [
        (Start(partial(one.make_encoder, FRESH + seed)), task)
        for seed in study.seeds
        for task in tasks
        if study.groups or task.seed == seed
    ]


@dataclass(frozen=True)
class Tuned:
    """What is measured on the test rows, and the learning rate that was chosen without them."""

    metrics: Metrics
    rate: float
    items: list[Labels]  # the test rows


def _about(shots: str, task: Task, found: Tuned) -> str:
    metric, value = next(iter(points(found.metrics, len(task.test_rows)).items()))
    return f"{shots} of the labels, seed {task.seed}: {metric} {value:.4f} at learning rate {found.rate:g}"


class Model(nn.Module):
    """An encoder and a linear head on its instances."""

    def __init__(self, encoder: Encoder, outputs: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, outputs)

    def forward(self, batch: Batch) -> Tensor:  # -> [M, outputs]
        out: Tensor = self.head(self.encoder(self.encoder.tokenize(batch)).instances.float())
        return out


@dataclass(frozen=True)
class Goal:
    """What a head is to say: class numbers, or numbers in deviations from the mean of those trained on."""

    labels: Tensor  # [len(reader)] int64 or float32, read at the rows trained on alone
    outputs: int
    mean: float = 0.0
    deviation: float = 1.0

    @staticmethod
    def of(task: Task) -> Goal:
        labels = task.train_labels
        every = torch.zeros(len(task.train), dtype=torch.float32 if labels.dtype.kind == "f" else torch.int64)
        rows = torch.as_tensor(task.train_rows)
        if labels.dtype.kind != "f":
            every[rows] = torch.as_tensor(labels)
            return Goal(every, len(task.classes))
        mean, deviation = float(labels.mean()), float(labels.std()) or 1.0
        every[rows] = torch.as_tensor((labels - mean) / deviation).float()
        return Goal(every, 1, mean, deviation)

    def loss(self, out: Tensor, samples: Tensor) -> Tensor:
        """Cross-entropy, or squared error."""
        wanted = self.labels.to(out.device)[samples]
        return F.mse_loss(out[:, 0], wanted) if wanted.is_floating_point() else F.cross_entropy(out, wanted)

    def metrics(self, out: Tensor, truth: Labels) -> Metrics:
        """Of what a model says of test rows [n, outputs]."""
        if self.labels.is_floating_point():
            return judged(truth, (out[:, 0].double() * self.deviation + self.mean).numpy(), None)
        margin = (out[:, 1] - out[:, 0]).numpy() if self.outputs == 2 else None
        return judged(truth, out.argmax(1).numpy(), margin)


@dataclass(frozen=True)
class Tuner:
    """Trains and tests models of one encoder."""

    saved: Saved
    budget: Budget
    device: torch.device

    def run(self, start: Start, task: Task) -> Tuned:
        """Choose a rate on part of the training rows, train on all of them, test once."""
        rates = self.budget.lrs
        inner = _inner(task) if len(rates) > 1 else None
        best = rates[0]
        if inner is not None:
            tried = [self._tried(start, inner, rate) for rate in rates]
            best = rates[int(np.argmax(tried))]
        metrics = self._fitted(start, task, best)
        if metrics is None:
            raise UserError(f"fine-tuning diverged at every learning rate of {rates}; give lower --lrs")
        return Tuned(metrics, best, task.items)

    def _tried(self, start: Start, inner: Task, rate: float) -> float:
        metrics = self._fitted(start, inner, rate)
        return -math.inf if metrics is None else next(iter(points(metrics, len(inner.test_rows)).values()))

    def _fitted(self, start: Start, task: Task, rate: float) -> Metrics | None:
        """Metrics of a model trained at one rate; None where it diverged."""
        goal = Goal.of(task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            model = Model(start.make(), goal.outputs)
            if start.features is not None:
                _as_probe(model.head, goal, task, start.features(task.train))
            model.to(self.device)
            finite = self._train(model, goal, task, rate, 1.0 if start.features is None else self.budget.encoder_rate)
        if not finite:
            return None
        out = self._predict(model.eval(), task.test, torch.as_tensor(task.test_rows))
        return goal.metrics(out, task.test_labels) if bool(out.isfinite().all()) else None

    def _train(self, model: Model, goal: Goal, task: Task, rate: float, share: float) -> bool:
        """Whether the loss stayed finite; `share` of the rate is the encoder's."""
        plan, on_device = self.budget, self.device.type != "cpu"
        rows = torch.as_tensor(task.train_rows).sort().values
        order = Order(rows, len(rows) if task.train.together else min(plan.batch_size, len(rows)), task.seed)
        steps = max(plan.epochs * order.epoch_steps, LEAST_STEPS)
        view, registry = self.saved.make_view(), self.saved.registry
        batches = Batches(task.train, view, {plan.views: 1}, order, registry, on_device)
        optimizer = self._optimizer(model, rate, share)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        loss = torch.zeros(())
        model.train()
        for number, step in enumerate(loader(batches, 0, steps, plan.workers, on_device)):
            if on_device:
                step = finish(step.to(self.device), view)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warmup_cosine(number, steps, 1.0, steps // 10)
            optimizer.zero_grad(set_to_none=True)
            out = self._out(model, step.views[plan.views])
            loss = goal.loss(_one_each(out, step.samples, self.saved), step.samples)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        return bool(loss.isfinite())

    def _out(self, model: Model, batch: Batch) -> Tensor:
        with autocast(self.budget.precision, self.device):
            out: Tensor = model(batch)
        return out.float()

    def _optimizer(self, model: Model, rate: float, share: float) -> torch.optim.Optimizer:
        """AdamW with no decay on vectors, and a rate of its own for the encoder."""
        groups: list[dict[str, Any]] = []
        for part, peak in ((model.encoder, rate * share), (model.head, rate)):
            weights = [p for p in part.parameters() if p.requires_grad]
            for decays in (True, False):
                chosen = [p for p in weights if (p.ndim > 1) == decays]
                decay = self.budget.weight_decay if decays else 0.0
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "lr": peak, "peak": peak})
        return torch.optim.AdamW(groups)

    @torch.no_grad()
    def _predict(self, model: Model, reader: Reader, rows: Tensor) -> Tensor:
        """What a model says of undisturbed samples [n, outputs], in the order of the rows."""
        size = len(rows) if reader.together else reader.embed_batch
        parts = []
        for _, batch, broken in whole_batches(reader, self.saved.make_view(), self.saved.registry, rows, size):
            if broken:
                raise UserError(
                    f"test sample {broken[0].name} cannot be read ({broken[0].reason}); remove it before an evaluation"
                )
            parts.append(self._out(model, to_device(batch, self.device)).cpu())
        return torch.cat(parts)


def _as_probe(linear: nn.Linear, goal: Goal, task: Task, features: Features) -> None:
    """A head starts as the frozen probe: one that starts by chance bends the encoder first (arXiv 2202.10054)."""
    labels = goal.labels[torch.as_tensor(task.train_rows)].numpy()
    weight, bias = linear_map(features[task.train_rows], labels, goal.outputs, task.seed)
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(weight))
        linear.bias.copy_(torch.as_tensor(bias))


def _one_each(out: Tensor, samples: Tensor, saved: Saved) -> Tensor:
    if len(out) != len(samples):
        raise UserError(f"encoder {saved.encoder.name!r} gives {len(out)} instances for {len(samples)} samples")
    return out


def _inner(task: Task) -> Task | None:
    """Four fifths of the rows to fit on and the others to choose by; None where rows are too few to spare any."""
    from sklearn.model_selection import train_test_split

    labels, rows = task.train_labels, np.arange(len(task.train_labels))
    regression = labels.dtype.kind == "f"
    held = math.ceil(len(rows) / 5)
    if len(rows) < 5 or (not regression and len(rows) - held < len(np.unique(labels))):
        return None
    stratify = proportions(labels, 0.2)
    fit, other = train_test_split(rows, test_size=held, random_state=task.seed, stratify=stratify)
    return replace(task.fitted_on(fit), test=task.train, test_rows=task.train_rows[other], test_labels=labels[other])
