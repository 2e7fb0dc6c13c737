"""What every term is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unlabeled.branches import Branch, Passes, Teacher
from unlabeled.collectives import batch_mean, batch_moments, mean_over_ranks, world
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.schedules import Clock

__all__ = ["Survey", "Term", "full_precision", "need_batch", "pairs_of", "spread"]

P = ParamSpec("P")
R = TypeVar("R")


class Survey(Protocol):
    """A pass over the data by the student as it is now, undisturbed; see Term.prepare."""

    def instances(self) -> Tensor:
        """[samples, D] float32 in the reader's order; zeros for samples that cannot be read."""
        ...

    def tokens(self, samples: int) -> Iterator[Tokens]:
        """Tokens of about this many samples, spread evenly over the training ones, batch by batch."""
        ...


class Term(nn.Module):
    """A loss, its heads and its state. `Term(encoder, **options)`; the mean over ranks of `loss` is the loss.

    `needs` says what the term asks of an encoder and a method, so that what cannot work is refused by name before
    the first step: "instances", "tokens", "embed" (a mixing point) of the encoder; "hidden", "moved", "mixed" of the
    mask; "views" (two or more), "transforms", "labels"; "teacher". State that moves (centres, queues) is a buffer and
    moves in `after_step`: once an optimiser step, not once a micro-batch.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    layers: int = 0  # how many of the teacher's last layers the term looks at
    tracked: ClassVar[tuple[str, ...]] = ()  # heads of which an EMA teacher has its own copy

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.teacher_heads = nn.ModuleDict()

    def attach(self, branch: Branch) -> None:
        """Told once which branch plays the teacher; heads then get their moving averages."""
        if branch == "ema":
            for name in self.tracked:
                self.teacher_heads[name] = Teacher(getattr(self, name))

    def pairs(self) -> list[tuple[Teacher, nn.Module]]:
        """Teacher heads and the students they follow."""
        return [(head, getattr(self, name)) for name, head in self.teacher_heads.items() if isinstance(head, Teacher)]

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        """{"loss": [], ...}: the loss, and its parts by name, which are logged."""
        raise NotImplementedError

    def after_backward(self, clock: Clock) -> None:
        """Before the optimiser: cancel gradients."""

    def after_step(self, clock: Clock) -> None:
        """After the optimiser: move state."""

    def prepare(self, clock: Clock, survey: Survey) -> None:
        """Before each epoch, for what needs a pass over the data (codes, token ids); keep it in buffers."""

    def teacher_head(self, passes: Passes, name: str = "projector") -> nn.Module:
        """The named head as the teacher has it: its moving average, or the student's own."""
        own: nn.Module = getattr(self, name)
        return self.teacher_heads[name] if passes.branch == "ema" else own

    def project(self, passes: Passes, name: str = "projector") -> tuple[list[Tensor], list[Tensor]]:
        """The named head of every student view, and of every teacher view if the term needs it; float32 [M, D] each."""
        student = [getattr(self, name)(view).float() for view in passes.instances("student")]
        if "teacher" not in self.needs:
            return student, []
        if passes.branch == "ema":
            whole = [self.teacher_heads[name](view).float() for view in passes.instances("teacher")]
        elif all(look is passes.student[kind][0] for kind, look in passes.teacher.items()):
            whole = student[: sum(look.views for look in passes.teacher.values())]  # batch statistics move once
        else:  # the student saw less than the teacher
            whole = [getattr(self, name)(view).float() for view in passes.instances("teacher")]
        return student, [view.detach() for view in whole] if passes.branch == "stop_gradient" else whole


def rest(prototypes: nn.Parameter, epochs: int, clock: Clock) -> None:
    """Keep prototypes as they began for some epochs, at most a tenth of the run: cancel their gradient."""
    if clock.step < min(epochs * clock.epoch_steps, clock.steps // 10) and prototypes.grad is not None:
        prototypes.grad.zero_()


def pairs_of(views: int) -> list[tuple[int, int]]:
    """Every unordered pair of views."""
    return [(one, two) for one in range(views) for two in range(one + 1, views)]


def need_batch(name: str, passes: Passes) -> None:
    """Terms that compare the samples of a batch cannot work on one; asked before a batch norm would fail on it."""
    if len(passes.instances("student")[0]) * world() < 2:
        raise UserError(
            f"term {name!r} compares the samples of a batch and got only one: raise --batch-size to 2 or more"
        )


def full_precision(loss: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """A loss outside autocast, which would take every matrix product back to 8 bits, `.float()` or not."""

    @wraps(loss)
    def exact(z: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(z.device.type, enabled=False):
            return loss(z, *args, **kwargs)

    return exact


def distillation(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Cross-entropy −Σ p log q, mean over samples and every student view against every *other* teacher view.

    Args:
        student: logits [M, K] a view, already divided by the student's temperature.
        teacher: probabilities [M, K] a global view; view i of both is the same view.
    """
    log_q = [view.log_softmax(-1) for view in student]
    pairs = [(p, q) for j, p in enumerate(teacher) for i, q in enumerate(log_q) if i != j]
    losses = [-torch.dot(p.flatten(), q.flatten()) / max(len(p), 1) for p, q in pairs]
    return torch.stack(losses).mean()


def by_rows(compute: Callable[..., Tensor], columns: int, most: int, *rows: Tensor) -> Tensor:
    """compute(*rows) in pieces of at most `most` entries of a [rows, columns] matrix that is never whole.

    Pieces are computed again in the backward pass, so that none is kept for it.
    """
    step = max(1, most // max(columns, 1))
    if len(rows[0]) <= step:
        return compute(*rows)
    parts = [
        checkpoint(compute, *(part[at : at + step] for part in rows), use_reentrant=False)
        for at in range(0, len(rows[0]), step)
    ]
    return torch.cat(parts)


class _ScatterMatrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, mean: Tensor | None) -> Tensor:
        z = z if mean is None else z - mean
        ctx.save_for_backward(z)
        return z.T @ z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return z @ (grads[0] + grads[0].T), None


def scatter_matrix(z: Tensor, mean: Tensor | None = None) -> Tensor:
    """[D, D] Σ (zᵢ − mean)(zᵢ − mean)ᵀ over this rank's rows [M, D].

    Being symmetric it needs one product for its gradient, where autograd would make two. The mean has to be that of
    the global batch: then its own gradient sums to nothing, and is left out.
    """
    matrix: Tensor = _ScatterMatrix.apply(z, mean)  # type: ignore[no-untyped-call]
    return matrix


@full_precision
def variance_covariance(z: Tensor) -> tuple[Tensor, Tensor]:
    """mean relu(1 − std) and Σ_{i≠j} cov²/D of one view [M, D], unbiased, over the global batch."""
    z = z.float()
    M, D = z.shape
    total = M * world()
    cov = mean_over_ranks(scatter_matrix(z, batch_mean(z.detach()))) * (world() / (total - 1))
    variance = cov.diagonal()
    hinge = torch.relu(1 - (variance + 1e-4).sqrt()).mean()
    everything = torch.dot(cov.flatten(), cov.flatten())  # without a third matrix, which a square would be
    return hinge, (everything - variance.square().sum()) / D


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """√D × mean standard deviation of ℓ2-normalised rows [M, D]: about 1 when healthy, 0 when collapsed."""
    z = nn.functional.normalize(z.detach().float(), dim=-1)
    return batch_moments(z)[1].sqrt().mean() * math.sqrt(z.shape[-1])
