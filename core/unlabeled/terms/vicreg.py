"""VICReg: views agree, every dimension varies, no two dimensions say the same (arXiv 2105.04906)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, need_batch, pairs_of, spread, variance_covariance


class VICReg(Term):
    """Three-layer projector (8192 wide at width 2048); 25 × invariance + 25 × variance + 1 × covariance.

    As in the paper's code the variance term is the mean over the two views and the covariance term their sum.
    """

    needs = frozenset({"instances", "views"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int | None = None,
        out: int | None = None,
    ):
        super().__init__(encoder)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        inner = hidden or 4 * encoder.width
        self.projector = head([encoder.width, inner, inner, out or inner])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("vicreg", passes)
        z, _ = self.project(passes)
        agree = torch.stack([F.mse_loss(z[one], z[two]) for one, two in pairs_of(len(z))]).mean()
        hinges, covs = zip(*(variance_covariance(view) for view in z), strict=True)
        hinge, cov = torch.stack(hinges).mean(), 2 * torch.stack(covs).mean()
        loss = self.invariance * agree + self.variance * hinge + self.covariance * cov
        parts = {"invariance": agree.detach(), "variance": hinge.detach(), "covariance": cov.detach()}
        return {"loss": loss, **parts, "std": spread(z[0])}
