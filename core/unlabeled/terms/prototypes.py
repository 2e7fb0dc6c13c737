"""Self-distillation over prototypes: DINO (arXiv 2104.14294), iBOT (2111.07832), DINOv2 (2304.07193)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import batch_mean, sum_over_ranks
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.masking import per_sample
from unlabeled.schedules import Clock, linear
from unlabeled.sinkhorn import sinkhorn
from unlabeled.terms.base import Term, distillation, rest, spread


class PrototypeHead(nn.Module):
    """MLP to a bottleneck, ℓ2-normed, against unit-length prototypes: logits are cosines.

    The paper's weight-normed last layer with its gain fixed at one is a cosine, written as such. Weights start at a
    deviation of 1/√inputs, which is the paper's .02 at its width of 2048: at .02 a narrow head starts almost at zero,
    and the first steps move all samples to one point.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        self.mlp = head([width, hidden, hidden, bottleneck], norm=False, act=nn.GELU)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5), nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=bottleneck**-0.5)

    def forward(self, x: Tensor) -> Tensor:  # [M, D] -> [M, K]
        return F.linear(F.normalize(self.mlp(x), dim=-1, eps=1e-6), F.normalize(self.prototypes, dim=-1))


class Centring(nn.Module):
    """Turns a teacher's logits into assignments that do not all choose one prototype.

    "mean" subtracts an EMA of the teacher's global batch mean, which starts at zero and moves once a step (DINO);
    "sinkhorn" balances the prototypes over the global batch and has no state (DINOv2).
    """

    value: Tensor  # [K]
    pending: Tensor  # [K] sum of teacher means over the micro-batches of a step
    count: Tensor  # [] how many

    def __init__(self, prototypes: int, kind: str, momentum: float):
        super().__init__()
        if kind not in ("mean", "sinkhorn"):
            raise UserError(f"prototypes are centred by mean or sinkhorn, not {kind!r}")
        self.kind, self.momentum = kind, momentum
        if kind == "mean":
            self.register_buffer("value", torch.zeros(prototypes))
            self.register_buffer("pending", torch.zeros(prototypes))
            self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:  # [M, K] -> [M, K]
        """Assignments; in training the mean of the logits is noted for the next step."""
        logits = logits.detach()
        if self.kind == "sinkhorn":
            return sinkhorn(logits, temperature)
        assigned = ((logits - self.value) / temperature).softmax(-1)
        if self.training:
            rows = sum_over_ranks(torch.tensor(float(len(logits)), device=logits.device))
            mean = sum_over_ranks(logits.sum(0)) / rows
            good = mean.isfinite().all()  # a step that is skipped must not leave its NaN here, nor no rows at all
            self.pending += torch.where(good, mean, 0)
            self.count += good
        return assigned

    def move(self) -> None:
        """After the optimiser's step."""
        if self.kind == "mean":
            share = (1 - self.momentum) * (self.count > 0)
            self.value.lerp_(self.pending / self.count.clamp(min=1), share)
            self.pending.zero_(), self.count.zero_()


class _Distilled(Term):
    """A prototype head with a teacher's copy, temperatures, and prototypes that rest at first.

    Args:
        prototypes, hidden, bottleneck: of the head.
        student_temperature: τ of the student.
        teacher_temperature, warm_temperature, warm_epochs: the teacher's rises linearly from warm over the epochs.
        centring: mean (DINO) or sinkhorn (DINOv2).
        centre_momentum: of the mean.
        rest_epochs: how long the prototypes rest, at most a tenth of the run.
    """

    tracked = ("projector",)
    two_centres: ClassVar[bool] = False  # one for instances and one for tokens
    projector: PrototypeHead

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
        centring: str = "mean",
        centre_momentum: float = 0.9,
        rest_epochs: int = 1,
    ):
        super().__init__(encoder)
        self.projector = PrototypeHead(encoder.width, hidden or 4 * encoder.width, bottleneck, prototypes)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.warm_temperature, self.warm_epochs, self.rest_epochs = warm_temperature, warm_epochs, rest_epochs
        self.centring = Centring(prototypes, centring, centre_momentum)
        if self.two_centres:
            self.token_centring = Centring(prototypes, centring, centre_momentum)

    def temperature(self, clock: Clock) -> float:
        """The teacher's, at this step."""
        return linear(clock.step, self.warm_epochs * clock.epoch_steps, self.warm_temperature, self.teacher_temperature)

    def after_backward(self, clock: Clock) -> None:
        rest(self.projector.prototypes, self.rest_epochs, clock)

    def after_step(self, clock: Clock) -> None:
        for module in self.modules():
            if isinstance(module, Centring):
                module.move()

    def views_loss(self, passes: Passes) -> dict[str, Tensor]:
        """DINO's: every student view against every other whole view of the teacher."""
        logits, whole = self.project(passes)
        with torch.no_grad():
            assigned = self.centring(torch.cat(whole), self.temperature(passes.clock)).chunk(len(whole))
            average = batch_mean(torch.stack(assigned, 1)).mean(0)
            usage = -(average * average.clamp(min=1e-12).log()).sum()
        loss = distillation(logits, list(assigned), self.student_temperature)
        return {"loss": loss, "usage": usage.exp(), "std": spread(passes.instances("student")[0])}

    def tokens_loss(self, passes: Passes, centring: Centring) -> Tensor:
        """iBOT's: hidden tokens against the teacher's tokens of the same places, a mean a sample, then over samples.

        Samples of which nothing is hidden count as zero, as in the paper's code.
        """
        losses = []
        for look, whole in passes.masked():
            assert look.hidden is not None
            assert whole is not None
            hidden = torch.stack(look.hidden.targets).any(0)
            owner, valid = per_sample(look.tokens)
            counts = torch.zeros_like(valid).index_add_(0, owner.flatten(), hidden.flatten().long())
            head = self.teacher_head(passes)
            with torch.no_grad():
                goal = centring(head(whole.latent[hidden]).float(), self.temperature(passes.clock))
            guess = (self.projector(look.latent[hidden]).float() / self.student_temperature).log_softmax(-1)
            error = -(goal * guess).sum(-1) / counts[owner[hidden]]
            losses.append(error.sum() / len(valid))
        return torch.stack(losses).mean()


class Prototypes(_Distilled):
    """Cross-entropy of the student's prototype assignment to the centred and sharpened one of an EMA teacher."""

    needs = frozenset({"instances", "views", "teacher"})

    @property
    def centre(self) -> Tensor:  # [K]
        """The EMA of the teacher's mean."""
        return self.centring.value

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        return self.views_loss(passes)


class HiddenPrototypes(_Distilled):
    """The same for hidden tokens and the teacher's at their places, with a head of its own (DINOv2, arXiv 2304.07193).

    Hide in place: what the student says of a hidden token is the encoder's own output there.
    """

    needs = frozenset({"tokens", "hidden", "teacher"})

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        _need_in_place("hidden_prototypes", passes)
        return {"loss": self.tokens_loss(passes, self.centring)}


class IBOT(_Distilled):
    """Both on one head, with a centre for each: iBOT (arXiv 2111.07832), whose losses are summed."""

    needs = frozenset({"instances", "views", "tokens", "hidden", "teacher"})

    two_centres = True

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        _need_in_place("ibot", passes)
        out = self.views_loss(passes)
        tokens = self.tokens_loss(passes, self.token_centring)
        return {**out, "loss": out["loss"] + tokens, "views": out["loss"].detach(), "tokens": tokens.detach()}


def _need_in_place(name: str, passes: Passes) -> None:
    if not all(look.in_place for look, _ in passes.masked()):
        raise UserError(
            f"term {name!r} reads hidden places off the encoder, which drops them: hide in place (in_place=true)"
        )
