"""Predict the cluster of another view: SwAV (arXiv 2006.09882) and its DeepCluster v2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank, world
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.normaliser import unit
from unlabeled.schedules import Clock
from unlabeled.sinkhorn import sinkhorn
from unlabeled.terms.base import Remembering, Survey, Term, distillation, need_batch, rest, spread

ROWS = 1 << 14  # samples compared with the centres at once


class SwAV(Remembering):
    """Codes of whole views, balanced over the global batch, are predicted from every other view.

    Scores are cosines of projections and prototypes. Where a batch is smaller than the number of prototypes, codes are
    balanced over a queue of earlier projections too: the paper's is 3840 rows of each whole view for batches of 256,
    from its 15th epoch of 200 on. Here whole views share one.

    Args:
        prototypes, hidden, out: of the two-layer projector (2048 → 2048 → 128 in the paper) and the prototypes.
        queue: how many earlier projections of whole views take part; 0: none.
        queue_epochs: from which epoch on, at the latest after a tenth of the run.
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
        queue: int = 0,
        queue_epochs: int = 15,
    ):
        if min(queue, queue_epochs) < 0:
            raise UserError(f"swav.queue and swav.queue_epochs are 0 or more, not {queue} and {queue_epochs}")
        super().__init__(encoder, queue, out)
        self.projector = head([encoder.width, hidden or encoder.width, out])
        self.prototypes = nn.Parameter(torch.randn(prototypes, out))
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.rest_epochs, self.queue_epochs = rest_epochs, queue_epochs

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("swav", passes)
        z, _ = self.project(passes)
        prototypes = F.normalize(self.prototypes.float(), dim=-1)
        with torch.autocast(z[0].device.type, enabled=False):
            scores = [unit(view) @ prototypes.T for view in z]
            whole = sum(looks[0].views for kind, looks in passes.student.items() if kind != "local")
            past = (self._queued(passes.clock) @ prototypes.T).detach()
        codes = [self.codes(view.detach(), past) for view in scores[:whole]]
        loss = distillation(scores, codes, self.temperature)
        for view in z[:whole]:
            self.remember(view)
        return {"loss": loss, "std": spread(z[0])}

    def codes(self, scores: Tensor, past: Tensor) -> Tensor:
        """[M, K] balanced over the global batch's scores [M, K] and those of past rows [J, K], this rank's share."""
        together = torch.cat([scores, past]) if len(past) else scores
        return sinkhorn(together, self.epsilon, self.iterations)[: len(scores)]

    def _queued(self, clock: Clock) -> Tensor:
        """This rank's share of the queue, once it takes part: every rank holds all of it."""
        begun = clock.step >= min(self.queue_epochs * clock.epoch_steps, clock.steps // 10)
        return self.past[rank() :: world()] if begun else self.memory[:0]

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
