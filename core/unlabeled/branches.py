"""Student and teacher: what each branch saw in a step, and the teacher's moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlabeled.contract import Encoded, Kind, Tokens
from unlabeled.masking import Hidden
from unlabeled.schedules import Clock

__all__ = ["Look", "Passes"]

Branch = Literal["shared", "stop_gradient", "ema"]
"""What plays the teacher: the student itself, the student without gradient, or its moving average."""


@dataclass(frozen=True, slots=True)
class Look:
    """One branch's pass over one kind of view, all its views in one batch, view after view."""

    views: int  # K
    tokens: Tokens  # of K × B samples
    encoded: Encoded
    hidden: Hidden | None = None  # None: everything was seen
    in_place: bool = False  # hidden tokens stood as blanks in the encoder, so that their latents are predictions

    @property
    def instances(self) -> Tensor:  # [K, M, D]
        instances = self.encoded.instances
        return instances.reshape(self.views, -1, instances.shape[-1])

    @property
    def seen(self) -> Tensor:  # [K × B, N] bool
        return self.tokens.valid if self.hidden is None else self.tokens.valid & ~self.hidden.hidden

    @property
    def layers(self) -> Sequence[Tensor]:  # [K × B, N, D] each, oldest first; the tokens where none were asked for
        return [self.latent] if self.encoded.layers is None else list(self.encoded.layers)

    @property
    def latent(self) -> Tensor:  # [K × B, N, D]
        assert self.encoded.tokens is not None, "an encoder without tokens is refused before the first step"
        return self.encoded.tokens


@dataclass(frozen=True, slots=True)
class Passes:
    """Everything the terms of a step may look at; each view went through each branch once."""

    branch: Branch
    student: Mapping[Kind, Sequence[Look]]  # one look a mask; one where nothing is hidden
    teacher: Mapping[Kind, Look]  # whole views only; no local ones
    clock: Clock
    samples: Tensor | None = None  # [B] int64, numbers of the samples in the reader
    labels: Tensor | None = None  # [B] int64, −1 where a sample has none; None where no term asks
    transforms: Mapping[Kind, Tensor] = field(default_factory=dict)  # [K × B] int64, where views were transformed
    embed: Callable[[Tokens], Tensor] | None = None  # the student's mixing point, where it has one

    def instances(self, who: Literal["student", "teacher"]) -> list[Tensor]:
        """[M, D] per view: plain, then global, then local ones (first mask, where there are several)."""
        looks = [self.student[kind][0] for kind in self.student] if who == "student" else list(self.teacher.values())
        return [view for look in looks for view in look.instances]

    def masked(self) -> list[tuple[Look, Look | None]]:
        """Every student look with something hidden, beside the teacher's whole look at the same views."""
        pairs = [(look, self.teacher.get(kind)) for kind, looks in self.student.items() for look in looks]
        return [(look, whole) for look, whole in pairs if look.hidden is not None]


class Teacher(nn.Module):
    """A module object of its own that follows a student: no gradient, no dropout, batch norm as in training.

    Everything else in it is in eval mode, since dropout has as many forms as there are libraries.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@torch.no_grad()
def follow(pairs: Iterable[tuple[Teacher, nn.Module]], momentum: float) -> None:
    """teacher = momentum × teacher + (1 − momentum) × student, in one fused pass; integer buffers are copied."""
    averages: list[Tensor] = []
    targets: list[Tensor] = []
    for teacher, student in pairs:  # a copy has its parts in the same order
        mine = chain(teacher.module.parameters(), teacher.module.buffers())
        for value, theirs in zip(mine, chain(student.parameters(), student.buffers()), strict=True):
            if value.is_floating_point():
                averages.append(value)
                targets.append(theirs)
            else:
                value.copy_(theirs)
    if averages:
        torch._foreach_lerp_(averages, targets, 1 - momentum)
