"""A map of the embedding: where samples lie on its first two principal directions, and which lie near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.contract import Encoder, Reader, View
from unlabeled.data.batches import held_out
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.plugins import Registry
from unlabeled.report.runs import Shown
from unlabeled.saved import describe, load
from unlabeled.training.folder import RunFolder

MOST = 500  # samples on a map
QUERIES, NEIGHBOURS = 6, 5


@dataclass(frozen=True)
class Source:
    """An encoder and the samples to show: those of a run in progress, or a finished one's read again."""

    encoder: Encoder
    reader: Reader
    view: View
    registry: Registry
    device: torch.device | None = None

    @staticmethod
    def of(run: Shown) -> Source:
        """The encoder that a run left, and its data.

        Raises:
            UserError: there is no encoder, or the data cannot be read or are others now.
        """
        saved = describe(run.path)
        reader = saved.make_reader(str(run.config["data"]))
        before, _ = RunFolder(run.path).read_facts()
        if len(reader) != before:
            raise UserError(f"{run.config['data']} has {len(reader)} samples now and had {before} when the run began")
        return Source(load(run.path), reader, saved.make_view(), saved.registry)


@dataclass(frozen=True)
class Map:
    """Points on two principal directions, and the nearest neighbours of a few of them."""

    names: Sequence[str]  # of n samples
    points: Sequence[Sequence[float]]  # [n, 2]
    shares: tuple[float, float]  # of the variance, along each direction
    near: Sequence[tuple[int, Sequence[tuple[int, float]]]]  # sample -> (neighbour, cosine similarity), nearest first


def draw(source: Source, health_samples: int, seed: int) -> Map:
    """The map of the samples that a run looks at for its health: held out where they can be.

    Raises:
        UserError: too few samples, or embeddings that are all one or not finite.
    """
    _, looked_at = held_out(source.reader, health_samples, seed)
    made = embed(
        source.encoder, source.reader, source.view, source.registry, indices=looked_at[:MOST], device=source.device
    )
    if len(made.instances) == len(made.indices):
        names = [source.reader.name(index) for index in made.indices.tolist()]
    else:
        names = [f"instance {number}" for number in range(len(made.instances))]
    return of_instances(made.instances[:MOST], names[:MOST])


def of_instances(instances: Tensor, names: Sequence[str]) -> Map:
    """The map of instances [n, D]: principal component analysis, and cosines of centred rows."""
    if len(instances) < 3:
        raise UserError(f"a map needs 3 samples that can be read, and there are {len(instances)}")
    if not instances.isfinite().all():
        raise UserError("embeddings are not finite")
    x = instances.double() - instances.double().mean(0)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    if values[0] <= 1e-9 * instances.double().norm():
        raise UserError("all samples have the same embedding")
    sign = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()[:, 0]  # else it is the library's choice
    points = torch.zeros(len(x), 2, dtype=torch.float64)
    points[:, : min(2, len(values))] = (left * values * sign)[:, :2]
    shares = [*(values.square() / values.square().sum()).tolist(), 0.0]
    unit = torch.nn.functional.normalize(x, dim=-1)
    near = []
    for query in torch.linspace(0, len(x) - 1, min(QUERIES, len(x))).long().tolist():
        cosine = unit @ unit[query]
        cosine[query] = -2.0
        best = cosine.topk(min(NEIGHBOURS, len(x) - 1))
        near.append((query, list(zip(best.indices.tolist(), best.values.tolist(), strict=True))))
    return Map(names, points.tolist(), (shares[0], shares[1]), near)
