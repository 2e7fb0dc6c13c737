"""Predict the cluster of another view: SwAV (arXiv 2006.09882) and its DeepCluster v2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.schedules import Clock
from unlabeled.sinkhorn import sinkhorn
from unlabeled.terms.base import Survey, Term, distillation, need_batch, rest, spread

ROWS = 1 << 14  # samples compared with the centres at once


class SwAV(Term):
    """Codes of whole views, balanced over the global batch, are predicted from every other view.

    Scores are cosines of projections and prototypes. The paper's queue of earlier projections is not there: batches
    smaller than the prototypes' number get coarser codes.

    Args:
        prototypes, hidden, out: of the two-layer projector (2048 → 2048 → 128 in the paper) and the prototypes.
        temperature: of predictions.
        epsilon, iterations: of Sinkhorn-Knopp.
        rest_epochs: how long the prototypes rest, at most a tenth of the run.
    """

    needs = frozenset({"instances", "views"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        prototypes: int = 3000,
        hidden: int | None = None,
        out: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        rest_epochs: int = 1,
    ):
        super().__init__(encoder)
        self.projector = head([encoder.width, hidden or encoder.width, out])
        self.prototypes = nn.Parameter(torch.randn(prototypes, out))
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.rest_epochs = rest_epochs

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("swav", passes)
        z, _ = self.project(passes)
        prototypes = F.normalize(self.prototypes.float(), dim=-1)
        with torch.autocast(z[0].device.type, enabled=False):
            scores = [F.normalize(view, dim=-1) @ prototypes.T for view in z]
        whole = sum(looks[0].views for kind, looks in passes.student.items() if kind != "local")
        codes = [sinkhorn(view, self.epsilon, self.iterations) for view in scores[:whole]]
        loss = distillation([view / self.temperature for view in scores], codes)
        return {"loss": loss, "std": spread(z[0])}

    def after_backward(self, clock: Clock) -> None:
        rest(self.prototypes, self.rest_epochs, clock)


def spherical_kmeans(x: Tensor, clusters: int, seed: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Unit centres [clusters, D] of unit rows [n, D], and each row's cluster [n]; empty ones start at a row again."""
    chance = torch.Generator().manual_seed(seed)
    centres = x[torch.randperm(len(x), generator=chance)[:clusters].to(x.device)]
    for _ in range(iterations):
        which = _nearest(x, centres)
        sums = torch.zeros_like(centres).index_add_(0, which, x)
        empty = torch.bincount(which, minlength=len(centres)) == 0
        again = x[torch.randint(len(x), (len(centres),), generator=chance).to(x.device)]
        centres = F.normalize(torch.where(empty[:, None], again, sums), dim=-1)
    return centres, _nearest(x, centres)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    return torch.cat([(part @ centres.T).argmax(1) for part in x.split(ROWS)])


class DeepCluster(Term):
    """Every view is told apart by its sample's cluster, found anew before each epoch.

    Clusters are spherical k-means of the whole data's projections by the encoder as it then is; the paper takes the
    projections that fell out of the last epoch. Their centres are the classifier of that epoch.

    Args:
        clusters: of each k-means; as many as there are samples, where these are fewer.
        heads: k-means of different starts, whose losses are averaged.
        temperature: of the cosines to the centres.
        hidden, out: of the two-layer projector.
    """

    needs = frozenset({"instances"})
    centres: Tensor  # [heads, clusters, out]
    assigned: Tensor  # [heads, samples] int64

    def __init__(
        self,
        encoder: Encoder,
        *,
        clusters: int = 3000,
        heads: int = 3,
        temperature: float = 0.1,
        hidden: int | None = None,
        out: int = 128,
    ):
        super().__init__(encoder)
        if min(clusters, heads) < 1:
            raise UserError(f"deepcluster needs clusters and heads of at least 1, not {clusters} and {heads}")
        self.clusters, self.heads, self.temperature = clusters, heads, temperature
        self.projector = head([encoder.width, hidden or encoder.width, out])
        self.register_buffer("centres", torch.zeros(heads, 0, out))
        self.register_buffer("assigned", torch.zeros(heads, 0, dtype=torch.int64))

    @torch.no_grad()
    def prepare(self, clock: Clock, survey: Survey) -> None:
        training = self.projector.training
        self.projector.eval()
        instances = gather(survey.instances()[None])[0]  # the first rank's, on every rank
        z = torch.cat([F.normalize(self.projector(part).float(), dim=-1) for part in instances.split(ROWS)])
        self.projector.train(training)
        found = [
            spherical_kmeans(z, min(self.clusters, len(z)), clock.step * self.heads + seed)
            for seed in range(self.heads)
        ]
        self.centres, self.assigned = (torch.stack(part) for part in zip(*found, strict=True))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("centres", "assigned"):  # their sizes are known only when they are found
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("deepcluster", passes)
        assert passes.samples is not None, "the loop says which samples a step has"
        z, _ = self.project(passes)
        losses = []
        with torch.autocast(z[0].device.type, enabled=False):
            for view in z:
                unit = F.normalize(view, dim=-1)
                for centres, assigned in zip(self.centres, self.assigned, strict=True):
                    losses.append(F.cross_entropy(unit @ centres.T / self.temperature, assigned[passes.samples]))
        return {"loss": torch.stack(losses).mean(), "std": spread(z[0])}
