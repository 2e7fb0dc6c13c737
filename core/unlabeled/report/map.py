"""A map of the embedding: where samples lie, which lie near each other, and which near none or on top of another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unlabeled.contract import Reader
from unlabeled.errors import UserError
from unlabeled.pictures import Picture
from unlabeled.report.labels import Labels, Unanswered
from unlabeled.report.samples import Samples, Source, look

QUERIES, NEIGHBOURS = 6, 5
MOST_APART = 6  # samples shown that are far from all others
NEAR = 0.999  # cosine of centred embeddings from which two samples may be one twice
MOST_PAIRS = 200  # so near that their content is compared
MOST_TWINS = 6  # pairs shown
ALIKE = 2.0  # grey levels of 255 that two pictures of one thing may differ by in the mean

MapName = Literal["pca", "umap", "both"]


@dataclass(frozen=True)
class Layout:
    """Samples in the plane."""

    title: str
    points: Sequence[Sequence[float]]  # [n, 2]
    axes: tuple[str, str]


@dataclass(frozen=True)
class Twins:
    """Two samples that are one twice, or nearly."""

    pair: tuple[int, int]  # places on the map
    cosine: float
    exact: bool  # all that the encoder is given is equal; else their pictures hardly differ


@dataclass(frozen=True)
class Map:
    """Samples in one plane or two, the neighbours of a few of them, and what stands out."""

    names: Sequence[str]  # of n samples
    layouts: Sequence[Layout]
    near: Sequence[tuple[int, Sequence[tuple[int, float]]]]  # sample -> (neighbour, cosine similarity), nearest first
    every: Sequence[Sequence[int]]  # [n, k] the nearest of every sample
    apart: Sequence[tuple[int, float]] = ()  # samples furthest from their nearest, with the mean cosine distance
    twins: Sequence[Twins] | None = ()  # None: not looked for, since samples do not stand alone
    twins_more: int = 0  # found and not shown
    fields: Sequence[Mapping[str, str]] = ()  # n, or none
    pictures: Sequence[Picture] | None = None  # n
    labels: Labels | None = None
    said: Sequence[str] = ()  # sentences for whoever looks at it


def draw(source: Source, health_samples: int, seed: int, label: str | None = None, maps: MapName = "pca") -> Map:
    """The map of the samples that a run looks at for its health, or of others.

    Raises:
        UserError: too few samples, embeddings that are all one or not finite, umap-learn is not installed.
    """
    found = look(source, source.chosen(health_samples, seed))
    made = of_instances(found.instances, found.names, maps)
    labels = None
    if label and found.numbers is not None:
        labels = Labels.of(source.reader, label, found.numbers)
    twins, more = _twins(found, source.reader)
    made = replace(made, twins=twins, twins_more=more, labels=labels, said=found.said)
    return replace(made, fields=found.fields, pictures=found.pictures)


def of_instances(instances: Tensor, names: Sequence[str], maps: MapName = "pca") -> Map:
    """The map of instances [n, D]: principal component analysis or UMAP, and cosines of centred rows.

    Raises:
        UserError: as of `draw`.
    """
    if len(instances) < 3:
        raise UserError(f"a map needs 3 samples that can be read, and there are {len(instances)}")
    if not instances.isfinite().all():
        raise UserError("embeddings are not finite")
    x = instances.double() - instances.double().mean(0)
    layouts = [_principal(x, float(instances.double().norm()))]
    unit = torch.nn.functional.normalize(x, dim=-1)
    if maps != "pca":
        layouts = [*(layouts if maps == "both" else []), _umap(unit)]
    cosine = _cosines(unit)
    best = cosine.topk(min(NEIGHBOURS, len(x) - 1))
    near = []
    for query in torch.linspace(0, len(x) - 1, min(QUERIES, len(x))).long().tolist():
        pairs = zip(best.indices[query].tolist(), best.values[query].tolist(), strict=True)
        near.append((query, list(pairs)))
    far = (1 - best.values).mean(1)
    most = far.topk(min(MOST_APART, len(x) // 3))
    apart = list(zip(most.indices.tolist(), most.values.tolist(), strict=True))
    return Map(names, layouts, near, best.indices.tolist(), apart)


def _cosines(unit: Tensor) -> Tensor:
    """[n, n], and -2 of a sample with itself, so that it is never its own neighbour."""
    return (unit @ unit.T).fill_diagonal_(-2.0)


def _principal(x: Tensor, size: float) -> Layout:
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    if values[0] <= 1e-9 * size:
        raise UserError("all samples have the same embedding")
    sign = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()[:, 0]  # else it is the library's choice
    points = torch.zeros(len(x), 2, dtype=torch.float64)
    points[:, : min(2, len(values))] = (left * values * sign)[:, :2]
    shares = [*(values.square() / values.square().sum()).tolist(), 0.0]
    names = [f"principal direction {n + 1} ({share:.0%} of the variance)" for n, share in enumerate(shares[:2])]
    return Layout("Principal component analysis", points.tolist(), (names[0], names[1]))


def umap_or_say() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # of parts that need tensorflow
            import umap
    except ImportError:
        raise Unanswered('UMAP needs umap-learn: pip install "unlabeled[report]", or leave out --map') from None
    return umap


def _umap(unit: Tensor) -> Layout:
    """McInnes et al. 2018 (arXiv 1802.03426), by cosine, with a fixed seed."""
    umap = umap_or_say()
    made = umap.UMAP(n_neighbors=min(15, len(unit) - 1), metric="cosine", random_state=0, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few samples, and of numba
        points = np.asarray(made.fit_transform(unit.numpy()), np.float64)
    if not np.isfinite(points).all():
        raise UserError(f"UMAP finds no map of {len(unit)} samples; leave out --map, or give more with --data")
    return Layout("UMAP", points.tolist(), ("UMAP 1, without a unit", "UMAP 2, without a unit"))


def _twins(found: Samples, reader: Reader) -> tuple[list[Twins] | None, int]:
    """Pairs of one embedding and one content, the nearest first, and how many more there are."""
    if found.numbers is None or reader.together:
        return None, 0
    x = found.instances.double()
    cosine = _cosines(torch.nn.functional.normalize(x - x.mean(0), dim=-1)).triu(1)
    values, flat = cosine.flatten().topk(min(MOST_PAIRS, cosine.numel()))
    made = []
    for value, place in zip(values.tolist(), flat.tolist(), strict=True):
        if value <= NEAR:
            break
        one, other = divmod(place, len(x))
        exact = _same(reader, found.numbers[one], found.numbers[other])
        if exact or _alike(found.pictures, one, other):
            made.append(Twins((one, other), value, exact))
    return made[:MOST_TWINS], len(made[MOST_TWINS:])


def _same(reader: Reader, one: int, other: int) -> bool:
    """Whether two samples hold the same; those that cannot be read again do not."""
    a, b = reader.or_none(one), reader.or_none(other)
    if a is None or b is None:
        return False
    sizes = sorted(a, key=lambda name: a[name].numel())  # what is small tells most pairs apart
    return set(a) == set(b) and all(a[n].shape == b[n].shape and bool(_equal(a[n], b[n])) for n in sizes)


def _equal(a: Tensor, b: Tensor) -> bool:
    """Entry by entry, and nothing is equal to nothing."""
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _alike(pictures: Sequence[Picture] | None, one: int, other: int) -> bool:
    if pictures is None or pictures[one].shape != pictures[other].shape:
        return False
    return float(np.abs(pictures[one].astype(float) - pictures[other]).mean()) <= ALIKE
