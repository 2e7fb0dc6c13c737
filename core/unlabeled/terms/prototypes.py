"""Self-distillation over prototypes (DINO, arXiv 2104.14294)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import batch_mean
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.schedules import Clock, linear
from unlabeled.terms.base import Term, spread


def distillation(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Cross-entropy −Σ p log q, mean over samples and every student view against every *other* teacher view.

    Args:
        student: logits [M, K] a view, already divided by the student's temperature.
        teacher: probabilities [M, K] a global view; view i of both is the same view.
    """
    log_q = [view.log_softmax(-1) for view in student]
    losses = [-(p * q).sum(-1).mean() for j, p in enumerate(teacher) for i, q in enumerate(log_q) if i != j]
    return torch.stack(losses).mean()


class PrototypeHead(nn.Module):
    """MLP to a bottleneck, ℓ2-normed, against unit-length prototypes: logits are cosines.

    The paper's weight-normed last layer with its gain fixed at one is a cosine, written as such.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        self.mlp = head([width, hidden, hidden, bottleneck], norm=False, act=nn.GELU)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02), nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, x: Tensor) -> Tensor:  # [M, D] -> [M, K]
        return F.linear(F.normalize(self.mlp(x), dim=-1, eps=1e-6), F.normalize(self.prototypes, dim=-1))


class Prototypes(Term):
    """Cross-entropy of the student's prototype assignment to the centred and sharpened one of an EMA teacher.

    The teacher's temperature rises linearly over `warm_epochs`; the prototypes rest for `rest_epochs` (at most
    a tenth of the run); the centre is an EMA of the teacher's global batch mean that starts at zero.
    """

    needs = frozenset({"instances", "views", "teacher"})
    tracked = ("projector",)
    projector: PrototypeHead
    centre: Tensor  # [K]
    pending: Tensor  # [K] sum of teacher means over the micro-batches of a step
    pending_count: Tensor  # []

    def __init__(
        self,
        encoder: Encoder,
        *,
        prototypes: int = 4096,
        hidden: int | None = None,
        bottleneck: int = 256,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warm_temperature: float = 0.04,
        warm_epochs: int = 30,
        centre_momentum: float = 0.9,
        rest_epochs: int = 1,
    ):
        super().__init__(encoder)
        self.projector = PrototypeHead(encoder.width, hidden or 4 * encoder.width, bottleneck, prototypes)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.warm_temperature, self.warm_epochs = warm_temperature, warm_epochs
        self.centre_momentum, self.rest_epochs = centre_momentum, rest_epochs
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("pending", torch.zeros(prototypes))
        self.register_buffer("pending_count", torch.zeros(()))

    def temperature(self, clock: Clock) -> float:
        """The teacher's, at this step."""
        return linear(clock.step, self.warm_epochs * clock.epoch_steps, self.warm_temperature, self.teacher_temperature)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        logits, whole = self.project(passes)
        sharp = self.temperature(passes.clock)
        with torch.no_grad():
            probabilities = [((view.detach() - self.centre) / sharp).softmax(-1) for view in whole]
            if self.training:
                mean = batch_mean(torch.stack(whole, 1)).mean(0)
                good = mean.isfinite().all()  # a step that is skipped must not leave its NaN here
                self.pending += torch.where(good, mean, 0)
                self.pending_count += good
            average = batch_mean(torch.stack(probabilities, 1)).mean(0)
            usage = -(average * average.clamp(min=1e-12).log()).sum()
        loss = distillation([view / self.student_temperature for view in logits], probabilities)
        return {"loss": loss, "usage": usage.exp(), "std": spread(passes.instances("student")[0])}

    def after_backward(self, clock: Clock) -> None:
        rest = min(self.rest_epochs * clock.epoch_steps, clock.steps // 10)
        if clock.step < rest and self.projector.prototypes.grad is not None:
            self.projector.prototypes.grad.zero_()

    def after_step(self, clock: Clock) -> None:
        mean = self.pending / self.pending_count.clamp(min=1)
        share = (1 - self.centre_momentum) * (self.pending_count > 0)
        self.centre.lerp_(mean, share)
        self.pending.zero_(), self.pending_count.zero_()
