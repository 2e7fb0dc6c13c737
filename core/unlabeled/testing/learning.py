"""An encoder by a method: P4, and whether the loss falls."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.config import config_from
from unlabeled.contract import Encoder, Reader, View
from unlabeled.data.batches import Step, finish, read_views
from unlabeled.embedding import Sweep
from unlabeled.errors import UserError
from unlabeled.methods import Method
from unlabeled.objective import Objective
from unlabeled.plugins import Registry
from unlabeled.randomness import sample_keys
from unlabeled.refusal import method_needs, refuse_data
from unlabeled.schedules import Clock
from unlabeled.testing.promises import BrokenPromise, attempt, expect

STEPS = 3


class Bout:
    """Steps of one encoder by one method on some samples, with all that the method may ask for.

    Args:
        names: of the method and of the encoder.
        indices: int64, the samples of each step.
        row: the method; None: the registry's with the domain's recipe.
        rate: learning rate.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        view: View,
        encoder: Encoder,
        names: tuple[str, str],
        indices: Tensor,
        row: Method | None = None,
        rate: float = 1e-3,
    ):
        self.who = f"encoder {names[1]!r} by method {names[0]!r}"
        self.row = row or config_from({"domain": registry.domain, "data": "", "method": names[0]}, registry).method
        self.registry, self.reader, self.view, self.indices = registry, reader, view, indices
        make = partial(Objective, encoder, self.row, registry, names, view.transforms)
        self.objective: Objective = attempt(make, "P4", self.who, "making the objective").train()
        self.objective.labels = torch.arange(len(reader)) % 2
        self.sweep = Sweep(encoder, reader, view, registry, indices, torch.device("cpu"))
        weights = [weight for weight in self.objective.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=rate)

    def batch(self, epoch: int) -> Step:
        """The samples' views of one epoch."""
        keys = sample_keys(0, epoch, self.indices)
        read = read_views(
            self.reader, self.view, self.objective.kinds(), self.indices, keys, self.indices, self.registry
        )
        return finish(read, self.view, self.row.views.transform)

    def step(self, made: Step, clock: Clock) -> float:
        """One optimisation step; the loss before it.

        Raises:
            BrokenPromise: it fails, or something is not finite.
        """
        if self.objective.needs_prepare() and clock.step % clock.epoch_steps == 0:
            self.objective.prepare(clock, self.sweep)
        forward = partial(self.objective, made.views, made.keys, clock, made.samples, made.transforms)
        loss: Tensor = attempt(forward, "P4", self.who, f"step {clock.step}")["loss"]
        expect(loss.isfinite(), "P4", self.who, f"the loss of step {clock.step} is {float(loss.detach())}")
        self.optimizer.zero_grad()
        attempt(loss.backward, "P4", self.who, f"the backward pass of step {clock.step}")
        for name, weight in self.objective.named_parameters():
            finite = weight.grad is None or weight.grad.isfinite().all()
            expect(finite, "P4", self.who, f"at step {clock.step} the gradient of {name!r} is not finite")
        self.objective.after_backward(clock)
        self.optimizer.step()
        self.objective.after_step(clock)
        return float(loss.detach())

    def learn(self, steps: int, settle: int = 0) -> list[float]:
        """Losses of steps on one batch, after some in which only state moves: before a centre has settled or a
        queue is full, a low loss means nothing."""
        made = self.batch(0)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        losses = []
        for step in range(settle + steps):
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate if step >= settle else 0.0
            losses.append(self.step(made, Clock(step, 10 * (settle + steps), settle + steps)))
        return losses[settle:]


def check_method(
    registry: Registry, reader: Reader, view: View, encoder: Encoder, names: tuple[str, str], indices: Tensor
) -> None:
    """P4: an encoder takes three optimisation steps by a method of the registry, with the domain's recipe.

    Args:
        names: of the method and of the encoder.
        indices: int64, the samples of each step.
    """
    if unable(registry, reader, view, encoder, names):
        return
    bout = Bout(registry, reader, view, encoder, names, indices)
    before = [weight.detach().clone() for weight in encoder.parameters()]
    for step in range(STEPS):
        bout.step(bout.batch(step), Clock(step, STEPS, 1))
    moved = any(not old.equal(new) for old, new in zip(before, encoder.parameters(), strict=True))
    expect(moved, "P4", bout.who, f"{STEPS} steps change no weight of the encoder")


def unable(registry: Registry, reader: Reader, view: View, encoder: Encoder, names: tuple[str, str]) -> str:
    """What the encoder, the reader, the view or the domain lacks of what a method needs, in words, or nothing.

    Raises:
        BrokenPromise: something is lacking, and nobody says so before the first step.
    """
    method = config_from({"domain": registry.domain, "data": "", "method": names[0]}, registry).method
    needs = method_needs(method, registry)
    default = any(part.options.get("target") == "default" for part in method.terms)
    causes = {
        "the encoder has no tokens": "tokens" in needs and not encoder.has_tokens,
        "the encoder has no mixing point": "embed" in needs and not encoder.embed_width,
        "the samples are parts of one whole": "mixed" in needs and reader.together,
        "the view knows no transforms": method.views.transform and view.transforms < 2,
        "the domain defines no target": default and not set(registry.targets) - set(plugins.core().targets),
    }
    cause = next((cause for cause, holds in causes.items() if holds), "")
    if cause:
        try:
            refuse_data(reader, view, method, registry, names)
            Objective(encoder, method, registry, names)
        except UserError:
            return cause
        who = f"encoder {names[1]!r} by method {names[0]!r}"
        raise BrokenPromise("P4", who, f"{cause}, the method needs it, and nobody says so")
    return ""
