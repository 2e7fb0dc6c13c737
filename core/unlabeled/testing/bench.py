"""A domain's plugins on the examples that they write themselves: check_plugin, and its parts one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.config import config_from
from unlabeled.contract import Batch, Encoder, Reader, Sample, View
from unlabeled.data.batches import finish, read_views
from unlabeled.data.collate import collate
from unlabeled.embedding import Sweep
from unlabeled.errors import UserError
from unlabeled.methods import Method
from unlabeled.objective import Objective
from unlabeled.plugins import Registry
from unlabeled.randomness import sample_keys
from unlabeled.refusal import method_needs, refuse_view
from unlabeled.schedules import Clock
from unlabeled.testing.encoders import check_encoder, check_tokens
from unlabeled.testing.promises import BrokenPromise, attempt, chance, expect, unequal
from unlabeled.testing.readers import check_reader, damaged
from unlabeled.testing.views import KINDS, check_view, make_view

SAMPLES = 8  # of the example, in the batches that encoders see
STEPS = 3


def check_plugin(domain: str, folder: Path) -> None:
    """Run every promise on every reader, view and encoder of a domain, and every encoder by every method.

    Args:
        domain: the name of the entry point.
        folder: where the plugins write their examples, a temporary one.

    Raises:
        PluginError: a plugin of the domain cannot be loaded.
        BrokenPromise: the first promise that is not kept.
    """
    bench = Bench(domain, folder)
    for name in bench.registry.readers:
        bench.check_reader(name)
    for name in bench.registry.views:
        bench.check_view(name)
    for name in bench.registry.encoders:
        bench.check_encoder(name)
        for method in bench.registry.methods:
            bench.check_method(name, method)


class Bench:
    """A domain's registry with its examples open.

    Raises:
        PluginError: a plugin of the domain cannot be loaded.
        BrokenPromise: something is missing that no check can do without (P1, P2).
    """

    def __init__(self, domain: str, folder: Path):
        self.registry: Registry = plugins.load(domain)
        self.who = f"domain {domain!r}"
        for table in ("readers", "views", "encoders"):
            expect(bool(getattr(self.registry, table)), "P2", self.who, f"it offers no {table}")
        self.examples = self.registry.examples(folder)
        expect(bool(self.examples), "P1", self.who, "no plugin of it implements unlabeled_example")
        broken = list(self.registry.broken.values())
        if broken:
            raise plugins.PluginError(broken[0])
        self.sources = {name: self._source(name) for name in self.registry.readers}
        self.reader = self.open(next(iter(self.registry.readers)))
        good = [index for index in range(min(len(self.reader), 1000)) if not damaged(self.reader, index)][:SAMPLES]
        self.indices = torch.tensor(good)
        expect(len(good) >= 4, "P1", self.who, f"its example has {len(good)} readable samples")
        self.samples: list[Sample] = [self.reader[index] for index in good]
        self.view: View = self.registry.make("view", None, self.reader.facts)

    def _source(self, reader: str) -> str:
        refusals = []
        for source in self.examples:
            try:
                self.registry.make("reader", reader, source)
                return source
            except UserError as error:  # it is another reader's example
                refusals.append(str(error))
        raise BrokenPromise("P1", f"reader {reader!r}", f"it takes none of the examples: {'; '.join(refusals)}")

    def open(self, reader: str, **options: Any) -> Reader:
        """A reader on the example that it takes."""
        made: Reader = self.registry.make("reader", reader, self.sources[reader], **options)
        return made

    def collate(self, samples: Any) -> Batch:
        """As the loader collates."""
        return collate(samples, self.registry)

    def batch(self, samples: list[Sample], numbers: Tensor) -> Batch:
        """The undisturbed view of samples."""
        return make_view(self.view, samples, "whole", sample_keys(0, 0, numbers), self.collate)

    def encoder(self, name: str, facts: Mapping[str, Any] | None = None) -> Encoder:
        """An encoder with the facts of the default reader."""
        made: Encoder = self.registry.make("encoder", name, self.reader.facts if facts is None else facts)
        return made

    def check_reader(self, name: str) -> None:
        """R1 … R10."""
        check_reader(partial(self.open, name), collate=self.collate, name=f"reader {name!r}")

    def check_view(self, name: str) -> None:
        """V1 … V7, and P3 for every encoder."""
        view: View = self.registry.make("view", name, self.reader.facts)
        check_view(view, self.samples, collate=self.collate, name=f"view {name!r}")
        keys = sample_keys(0, 0, self.indices)
        batches = {kind: make_view(view, self.samples, kind, keys, self.collate) for kind in KINDS}
        for encoder in self.registry.encoders:
            made = self.encoder(encoder)
            for kind, batch in batches.items():
                note = f" of view {name!r}, kind {kind!r},"
                try:
                    check_tokens(made, batch, f"encoder {encoder!r}", note)
                except BrokenPromise as error:
                    raise BrokenPromise("P3", f"view {name!r}", str(error)) from error

    def check_encoder(self, name: str) -> None:
        """E1 … E20."""
        who = f"encoder {name!r}"
        alone = [self.batch([sample], self.indices[at : at + 1]) for at, sample in enumerate(self.samples)]
        with chance(0):
            encoder = self.encoder(name)
        with chance(0):
            facts = json.loads(json.dumps(self.reader.facts))
            words = unequal(encoder.state_dict(), self.encoder(name, facts).state_dict())
        expect(not words, "E19", who, f"facts that went through JSON give another encoder: {words}")
        batch = self.batch(self.samples, self.indices)
        check_encoder(encoder, batch, again=partial(self.encoder, name), alone=alone, name=who)

    def check_method(self, encoder: str, method: str) -> None:
        """P4."""
        with chance(0):
            check_method(self.registry, self.reader, self.view, self.encoder(encoder), (method, encoder), self.indices)


def check_method(
    registry: Registry, reader: Reader, view: View, encoder: Encoder, names: tuple[str, str], indices: Tensor
) -> None:
    """P4: an encoder takes three optimisation steps by a method of the registry, with the domain's recipe.

    Args:
        names: of the method and of the encoder.
        indices: int64, the samples of each step.
    """
    who = f"encoder {names[1]!r} by method {names[0]!r}"
    method = config_from({"domain": registry.domain, "data": "", "method": names[0]}, registry).method
    cause = _unable(method, encoder, view, registry)
    if cause:
        try:
            refuse_view(view, method, names)
            Objective(encoder, method, registry, names)
        except UserError:
            return
        raise BrokenPromise("P4", who, f"{cause}, the method needs it, and nobody says so")
    objective = attempt(partial(Objective, encoder, method, registry, names), "P4", who, "making the objective")
    objective.labels = torch.arange(len(reader)) % 2
    sweep = Sweep(encoder, reader, view, registry, indices, torch.device("cpu"))
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    before = [weight.detach().clone() for weight in encoder.parameters()]
    for step in range(STEPS):
        clock = Clock(step, STEPS, 1)
        if objective.needs_prepare():
            objective.prepare(clock, sweep)
        keys = sample_keys(0, step, indices)
        step_of = read_views(reader, view, objective.kinds(), indices, keys, indices, registry)
        made = finish(step_of, view, method.views.transform)
        forward = partial(objective, made.views, made.keys, clock, made.samples, made.transforms)
        loss = attempt(forward, "P4", who, f"step {step}")["loss"]
        expect(loss.isfinite(), "P4", who, f"the loss of step {step} is {float(loss.detach())}")
        optimizer.zero_grad()
        attempt(loss.backward, "P4", who, f"the backward pass of step {step}")
        for name, weight in objective.named_parameters():
            finite = weight.grad is None or weight.grad.isfinite().all()
            expect(finite, "P4", who, f"at step {step} the gradient of {name!r} is not finite")
        objective.after_backward(clock)
        optimizer.step()
        objective.after_step(clock)
    moved = any(not old.equal(new) for old, new in zip(before, encoder.parameters(), strict=True))
    expect(moved, "P4", who, f"{STEPS} steps change no weight of the encoder")


def _unable(method: Method, encoder: Encoder, view: View, registry: Registry) -> str:
    """What the encoder, the view or the domain lacks of what a method needs, in words, or nothing."""
    needs = method_needs(method, registry)
    if "tokens" in needs and not encoder.has_tokens:
        return "the encoder has no tokens"
    if "embed" in needs and not encoder.embed_width:
        return "the encoder has no mixing point"
    if method.views.transform and view.transforms < 2:
        return "the view knows no transforms"
    wants_target = any(part.options.get("target") == "default" for part in method.terms)
    if wants_target and not set(registry.targets) - set(plugins.core().targets):
        return "the domain defines no target"
    return ""
