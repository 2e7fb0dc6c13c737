"""What every term is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import reduce, wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unlabeled.branches import Branch, Look, Passes, Teacher
from unlabeled.collectives import batch_mean, batch_moments, gather, mean_over_ranks, world
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import predictor
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
    the first step: "instances", "tokens", "embed" (a mixing point) of the encoder; "hidden", "moved", "mixed", "fused"
    of the mask; "views" (two or more), "transforms", "labels"; "teacher". State that moves (centres, queues) is a
    buffer and moves in `after_step`: once an optimiser step, not once a micro-batch.
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


class Remembering(Term):
    """A term with a queue of past unit rows of all ranks, which moves once an optimiser step.

    MoCo's negatives, NNCLR's neighbours, the rows that SwAV's codes are balanced over too.

    Only rows that were filled count, so the first step has none. A step that is skipped leaves nothing.
    """

    memory: Tensor  # [places, width] unit vectors
    filled: Tensor  # [] int64
    pointer: Tensor  # [] int64

    def __init__(self, encoder: Encoder, places: int, width: int):
        super().__init__(encoder)
        self.register_buffer("memory", torch.zeros(places, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.pending: list[Tensor] = []  # rows of this step's micro-batches, of all ranks

    @property
    def past(self) -> Tensor:
        """[filled, width] rows of earlier steps."""
        return self.memory[: int(self.filled)]

    def remember(self, rows: Tensor) -> None:
        """Note [M, width] rows of this step, in training; M on every rank."""
        if len(self.memory) and self.training:
            self.pending.append(gather(nn.functional.normalize(rows.detach(), dim=-1)))

    def after_step(self, clock: Clock) -> None:
        if not self.pending:
            return
        places = len(self.memory)
        rows = torch.cat(self.pending)[-places:]
        self.pending.clear()
        good = rows.isfinite().all()  # a step that is skipped must leave nothing here
        place = (self.pointer + torch.arange(len(rows), device=rows.device)) % places
        self.memory[place] = torch.where(good, rows, self.memory[place])
        count = good * len(rows)
        self.pointer.add_(count).remainder_(places)
        self.filled.add_(count).clamp_(max=places)


def rest(prototypes: nn.Parameter, epochs: int, clock: Clock) -> None:
    """Keep prototypes as they began for some epochs, at most a tenth of the run: cancel their gradient."""
    if clock.step < min(epochs * clock.epoch_steps, clock.steps // 10) and prototypes.grad is not None:
        prototypes.grad.zero_()


def hidden_reader(encoder: Encoder, out: int, width: int | None, depth: int) -> nn.Module:
    """What reads wanted places: a linear map of tokens hidden in place at depth 0, else a predictor."""
    return predictor(encoder, out, width, depth) if depth else nn.Linear(encoder.width, out)


def read_hidden(name: str, reader: nn.Module, look: Look, wanted: Tensor) -> Tensor:
    """[B, N, out] what a `hidden_reader` says, which counts at wanted places [B, N] alone.

    Raises:
        UserError: it reads the encoder's own tokens, and the encoder dropped the hidden ones.
    """
    if not isinstance(reader, nn.Linear):
        out: Tensor = reader(look.latent, look.tokens, look.seen, wanted)
        return out
    if not look.in_place:
        raise UserError(
            f"{name}.depth=0 reads hidden places off the encoder, which drops them: hide in place "
            f"(in_place=true), or give {name} a depth"
        )
    linear: Tensor = reader(look.latent)
    return linear


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


def distillation(student: list[Tensor], teacher: list[Tensor], temperature: float = 1.0) -> Tensor:
    """Cross-entropy −Σ p log q, mean over samples and every student view against every *other* teacher view.

    Args:
        student: logits [M, K] a view.
        teacher: probabilities [M, K] a global view; view i of both is the same view. They get no gradient.
        temperature: τ of the student.
    """
    losses, pairs = [], 0
    goal = teacher[0]
    for number, view in enumerate(student):
        others = teacher[:number] + teacher[number + 1 :]
        if others:
            if number <= len(teacher):  # views that are none of the teacher's have one goal
                goal = reduce(torch.add, others)
            losses.append(_cross_entropy(view, goal, temperature))
            pairs += len(others)
    return torch.stack(losses).sum() / pairs


def _cross_entropy(logits: Tensor, goal: Tensor, temperature: float) -> Tensor:
    """[] −Σ p log softmax(logits/τ), mean over rows; a sum of goals is one goal of a larger mass."""
    wanted = torch.is_grad_enabled() and logits.requires_grad
    loss: Tensor = _CrossEntropy.apply(logits, goal, temperature, wanted)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """The gradient is made beside the value, in place of the logarithms: one [M, K] is kept, not three."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, goal: Tensor, temperature: float, wanted: bool) -> Tensor:
        log_q = (logits / temperature).log_softmax(-1)
        rows = max(len(logits), 1)
        loss = -torch.dot(log_q.flatten(), goal.flatten()) / rows
        if wanted:
            slope = log_q.exp_().mul_(goal.sum(-1, keepdim=True)).sub_(goal).mul_(1 / (rows * temperature))
            ctx.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0], None, None, None


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
        ctx.save_for_backward(z, mean)
        centred = z if mean is None else z - mean
        return centred.T @ centred

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        z, mean = ctx.saved_tensors
        return (z if mean is None else z - mean) @ (grads[0] + grads[0].T), None


def scatter_matrix(z: Tensor, mean: Tensor | None = None) -> Tensor:
    """[D, D] Σ (zᵢ − mean)(zᵢ − mean)ᵀ over this rank's rows [M, D].

    Being symmetric it needs one product for its gradient, where autograd would make two, and no centred copy is kept.
    The mean has to be that of the global batch: then its own gradient sums to nothing, and is left out.
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
