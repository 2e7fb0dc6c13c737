"""Cosine regression of one view's embedding from another's (BYOL, arXiv 2006.07733; SimSiam, 2011.10566).

DirectPred (arXiv 2102.06810) is BYOL with a predictor that is not learnt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import mean_over_ranks
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term, full_precision, need_batch, spread


def cosine_regression(predicted: list[Tensor], target: list[Tensor]) -> Tensor:
    """2 − 2 cos(p, t), mean over samples and over every student view against every *other* teacher view.

    It is the squared distance of the two unit vectors. SimSiam's −cos is half of it, less one.

    Args:
        predicted, target: [M, D] a view; view i of both is the same view of the samples.

    Returns:
        [] in 0 (views agree) … 4.
    """
    p = [F.normalize(view.float(), dim=-1) for view in predicted]
    t = [F.normalize(view.float(), dim=-1) for view in target]
    losses = [(2 - 2 * (p[i] * t[j]).sum(-1)).mean() for j in range(len(t)) for i in range(len(p)) if i != j]
    return torch.stack(losses).mean()


@full_precision
def second_moment(z: Tensor) -> Tensor:
    """E[z zᵀ] [D, D] over the global batch, of [M, D] that are not centred."""
    return mean_over_ranks(z.T @ z / len(z))


@full_precision
def direct_weight(correlation: Tensor, floor: float) -> Tensor:
    """U diag(√(s/max s) + ε) Uᵀ of F = U diag(s) Uᵀ [D, D]: DirectPred's predictor; the identity of F = 0.

    The paper writes √s + ε max s. This is its code's form, in which ε means the same at every scale of F.

    Args:
        correlation: F, symmetric.
        floor: ε.
    """
    s, U = torch.linalg.eigh(correlation)  # ascending
    s = s.clamp(min=0)
    p = (s / s[-1].clamp(min=torch.finfo(s.dtype).tiny)).sqrt() + floor
    weight: Tensor = U * torch.where(s[-1] > 0, p, 1) @ U.T
    return weight


class DirectPredictor(nn.Module):
    """A linear predictor set from the correlation matrix of its inputs, once a step and without gradient.

    F = ρF + (1 − ρ)·E[z zᵀ], not centred, starts at zero; the predictor starts as the identity.
    """

    correlation: Tensor  # F [D, D]
    weight: Tensor  # [D, D], symmetric
    pending: Tensor  # [D, D] sum of E[z zᵀ] over the micro-batches of a step
    pending_count: Tensor  # []

    def __init__(self, width: int, decay: float, floor: float):
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("correlation", torch.zeros(width, width))
        self.register_buffer("weight", torch.eye(width))
        self.register_buffer("pending", torch.zeros(width, width))
        self.register_buffer("pending_count", torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:  # [M, D] -> [M, D]
        return F.linear(z, self.weight)

    @torch.no_grad()
    def collect(self, views: list[Tensor]) -> None:
        """Note the correlation of a micro-batch's inputs, [M, D] a view."""
        now = second_moment(torch.cat(views))
        good = now.isfinite().all()  # a step that is skipped must not leave its NaN here
        self.pending += torch.where(good, now, 0)
        self.pending_count += good

    @torch.no_grad()
    def move(self) -> None:
        """After a step: follow the inputs, and be set anew."""
        now = self.pending / self.pending_count.clamp(min=1)
        self.correlation.lerp_(now, (1 - self.decay) * (self.pending_count > 0))
        self.weight.copy_(direct_weight(self.correlation, self.floor))
        self.pending.zero_(), self.pending_count.zero_()


class Regress(Term):
    """Projector (BYOL: width → 4096 → 256 at width 2048) and predictor of the teacher's projection.

    `layers=3, end_norm=True` and a narrow `predictor_hidden` make SimSiam's heads of it, `direct=True` DirectPred's:
    then `decay` is its ρ and `floor` its ε. `layers=0` predicts the teacher's embedding itself, as BGRL does
    (arXiv 2102.06514); `norm` puts batch norms in both heads.
    """

    needs = frozenset({"instances", "views", "teacher"})
    tracked = ("projector",)

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int | None = None,
        out: int = 256,
        layers: int = 2,
        end_norm: bool = False,
        predictor_hidden: int | None = None,
        predictor: bool = True,
        direct: bool = False,
        decay: float = 0.3,
        floor: float = 0.1,
        norm: bool = True,
    ):
        super().__init__(encoder)
        inner = hidden or 2 * encoder.width
        self.projector: nn.Module
        if layers:
            self.projector = head([encoder.width, *[inner] * (layers - 1), out], norm=norm, last_norm=end_norm)
        else:
            self.projector, out = nn.Identity(), encoder.width
        self.predictor: nn.Module
        if direct:
            self.predictor = DirectPredictor(out, decay, floor)
        else:
            self.predictor = head([out, predictor_hidden or inner, out], norm=norm) if predictor else nn.Identity()

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("regress", passes)
        z, target = self.project(passes)
        if isinstance(self.predictor, DirectPredictor) and self.training:
            self.predictor.collect(z)
        predicted = [self.predictor(view) for view in z]
        return {"loss": cosine_regression(predicted, target), "std": spread(z[0])}

    def after_step(self, clock: Clock) -> None:
        if isinstance(self.predictor, DirectPredictor):
            self.predictor.move()
