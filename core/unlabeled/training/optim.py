"""Optimisers: AdamW, Adam and LARS, with no decay on norms and biases, both able to skip a step without waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.config import Training
from unlabeled.schedules import Clock, cosine, infinite, warmup_cosine


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled layer by layer to the weights' norm (arXiv 1708.03888).

    Vectors (norms, biases) are neither scaled nor decayed, as in BYOL and Barlow Twins.
    `found_inf`, a tensor set by the loop, skips the step where it is 1, as torch's fused AdamW does.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, momentum: float = 0.9, trust: float = 1e-3):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; a closure is not evaluated."""
        keep = 1.0 if self.found_inf is None else 1.0 - self.found_inf
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = torch.nan_to_num(parameter.grad) if self.found_inf is not None else parameter.grad
                if parameter.ndim > 1:
                    grad = grad + group["weight_decay"] * parameter
                    size, slope = parameter.norm(), grad.norm()
                    rate = torch.where((size > 0) & (slope > 0), group["trust"] * size / slope, 1.0)
                    grad = grad * rate
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                moved = state["momentum"] * group["momentum"] + grad
                state["momentum"].add_((moved - state["momentum"]) * keep)
                parameter.sub_(group["lr"] * state["momentum"] * keep)


def make_optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimiser of a run: matrices with weight decay, vectors without."""
    weights = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": training.weight_decay, "decays": True},
        {"params": vectors, "weight_decay": 0.0, "decays": False},
    ]
    if training.optimizer == "lars":
        return LARS(groups, lr=training.lr)
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=training.lr, betas=(0.9, training.beta2), fused=True)


def learning_rate(training: Training, clock: Clock) -> float:
    """The rate of a step."""
    warm, cool = _length(training.warmup, clock.steps), _length(training.cooldown, clock.steps)
    if training.schedule == "constant":
        return training.lr * min((clock.step + 1) / warm, 1.0) if warm else training.lr
    if training.schedule == "cosine":
        return warmup_cosine(clock.step, clock.steps, training.lr, warm, training.lr_end)
    constant = 0.55 * training.lr if training.lr_constant is None else training.lr_constant
    end, last = training.lr_end or constant / 10, round(training.anneal * clock.steps)
    return infinite(clock.step, clock.steps, training.lr, constant, end, warm, cool, last)


def _length(share: float, steps: int) -> int:
    """Of a phase in steps, from a share of the run or a number of them."""
    return round(share * steps) if share < 1 else int(share)


def in_steps(training: Training, steps: int) -> Training:
    """Training whose first phases are numbers of steps, where the schedule is not made for one length.

    So they stay where they are when a run is made longer.
    """
    if training.schedule == "cosine":
        return training
    return replace(training, warmup=_length(training.warmup, steps), cooldown=_length(training.cooldown, steps))


def set_rates(optimizer: torch.optim.Optimizer, training: Training, clock: Clock) -> float:
    """Set this step's learning rate and weight decay; returns the rate."""
    rate = learning_rate(training, clock)
    end = training.weight_decay if training.weight_decay_end is None else training.weight_decay_end
    decay = cosine(clock.step, clock.steps, training.weight_decay, end)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if group["decays"]:
            group["weight_decay"] = decay
    return rate
