"""Cosine regression of one view's embedding from another's (BYOL, arXiv 2006.07733; SimSiam, 2011.10566)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, need_batch, spread


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


class Regress(Term):
    """Projector (BYOL: width → 4096 → 256 at width 2048) and predictor of the teacher's projection.

    `layers=3, end_norm=True` and a narrow `predictor_hidden` make SimSiam's heads of it.
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
    ):
        super().__init__(encoder)
        inner = hidden or 2 * encoder.width
        self.projector = head([encoder.width, *[inner] * (layers - 1), out], last_norm=end_norm)
        self.predictor = head([out, predictor_hidden or inner, out]) if predictor else nn.Identity()

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("regress", passes)
        z, target = self.project(passes)
        predicted = [self.predictor(view) for view in z]
        return {"loss": cosine_regression(predicted, target), "std": spread(z[0])}
