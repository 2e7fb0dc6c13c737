"""Split invariant and equivariant embeddings (SIE, arXiv 2302.10283)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.terms.base import Term, need_batch, pairs_of, spread, variance_covariance


class SIE(Term):
    """Half of the embedding is equal in both views; of the other half, one view's follows from the other's.

    What leads from one view to the other is a matrix that a hypernetwork makes of the two views' transforms, here
    their numbers among those that the view knows. The invariant and the predicted half cost their squared distance;
    variance and covariance of the whole embedding, and the variance of predictions, keep it from collapse, weighted
    as in VICReg.

    Args:
        transforms: K, the view's, which the loop fills in.
        invariance, equivariance, variance, covariance: weights.
        hidden, out: of each half's three-layer projector.
    """

    needs = frozenset({"instances", "views", "transforms"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        transforms: int = 0,
        invariance: float = 10.0,
        equivariance: float = 4.5,
        variance: float = 10.0,
        covariance: float = 1.0,
        hidden: int | None = None,
        out: int | None = None,
    ):
        super().__init__(encoder)
        if transforms < 2:
            raise UserError(f"term 'sie' needs known transforms and the view knows {transforms}")
        if encoder.width % 2:
            raise UserError(f"term 'sie' splits the embedding in halves: its width {encoder.width} must be even")
        self.transforms, self.each = transforms, encoder.width // 2
        self.weights = (invariance, equivariance, variance, covariance)
        inner = hidden or 2 * encoder.width
        self.out = out or encoder.width
        self.invariant = head([self.each, inner, inner, self.out])
        self.equivariant = head([self.each, inner, inner, self.out])
        self.matrices = nn.Linear(2 * transforms, self.out * self.out, bias=False)  # linear, as the paper's

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("sie", passes)
        views = passes.instances("student")
        which = [one for kind, looks in passes.student.items() for one in passes.transforms[kind].chunk(looks[0].views)]
        if len(views[0]) != len(which[0]):
            raise UserError("term 'sie' needs an instance a sample, and instances here are parts of one whole")
        same = [self.invariant(view[:, : self.each]).float() for view in views]
        turned = [self.equivariant(view[:, self.each :]).float() for view in views]
        invariance, equivariance, spread_out = [], [], []
        for one, two in pairs_of(len(views)):
            invariance.append(F.mse_loss(same[one], same[two]))
            for a, b in ((one, two), (two, one)):
                guess = self._turn(turned[a], which[a], which[b])
                equivariance.append(F.mse_loss(guess, turned[b]))
                spread_out.append(variance_covariance(guess)[0])
        hinges, covs = zip(
            *(variance_covariance(torch.cat(both, 1)) for both in zip(same, turned, strict=True)), strict=True
        )
        parts = [torch.stack(part).mean() for part in (invariance, equivariance, [*hinges, *spread_out], covs)]
        loss = sum(weight * part for weight, part in zip(self.weights, parts, strict=True))
        assert isinstance(loss, Tensor)
        names = ("invariance", "equivariance", "variance", "covariance")
        logged = {name: part.detach() for name, part in zip(names, parts, strict=True)}
        return {"loss": loss, **logged, "std": spread(same[0])}

    def _turn(self, z: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """[M, out]: each row through the matrix that belongs to its two transforms."""
        both = torch.cat([F.one_hot(one, self.transforms) for one in (before, after)], 1).to(z.dtype)
        matrix = self.matrices(both).view(len(z), self.out, self.out).float()
        return torch.einsum("mi,mij->mj", z, matrix)
