"""Frozen features on graphs as the field measures them, beside the untrained encoder and the raw features.

The split is part of each score, since numbers on a random split are higher and mean something else.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlabeled.contract import Encoder
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.saved import Saved, describe, load
from unlabeled_graph.graphs import Floats, Ints, Parts
from unlabeled_graph.readers import Collection, GraphReader, Nodes

PROBE_EPOCHS, PROBE_RATE, PROBE_DECAY = 2000, 1e-2, 1e-4  # CCA-SSG's linear evaluation (arXiv 2106.12484)
PROBE_SCALES = (1.0, 0.1, 0.01)  # root mean square of the features, beside the scale that they come in
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a support vector machine, as InfoGraph and GraphMAE search them
FOLDS = 10
FRESH = 1000  # first seed of untrained encoders, away from those of training

Metrics = Mapping[str, float]
Measure = Callable[[Floats, int], Any]  # of features and a seed
Gather = Callable[[list[Any]], Mapping[str, tuple[float, ...]]]  # of what was measured with each seed


@dataclass(frozen=True)
class Score:
    """One measured number of one kind of features; over seeds, or over folds."""

    features: str
    task: str
    split: str
    metric: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over the values; 0 with one."""
        return float(np.std(self.values))

    def row(self) -> dict[str, str]:
        """As a table shows it."""
        number = f"{100 * self.mean:.2f} ± {100 * self.spread:.2f}"
        text = {"features": self.features, "task": self.task, "split": self.split, "metric": self.metric}
        return {**text, "mean ± deviation": number, "values": str(len(self.values))}


def save(scores: Sequence[Score], path: Path) -> None:
    """Write JSON."""
    rows = [{**asdict(score), "mean": score.mean, "spread": score.spread} for score in scores]
    path.write_text(json.dumps(rows, indent=1) + "\n")


# ---- tasks


def node_classification(
    runs: Sequence[str | Path],
    data: str,
    *,
    label: str = "label",
    split: str = "public",
    seeds: int = 20,
    device: torch.device | None = None,
) -> list[Score]:
    """Accuracy of a linear probe on nodes, at the epoch and the feature scale that are best on validation nodes.

    Args:
        runs: run folders; several are one a pre-training seed and share out the probe's seeds.
        data: what the runs' reader takes.
        label: of the nodes.
        split: "public", or "random" for a tenth to train, a tenth to validate and the rest to test, another each seed.
        seeds: of probes, untrained encoders and random splits.

    Raises:
        UserError: the data have no such label or split, or samples are not nodes.
    """
    reader = _reader(runs, data, Nodes, "nodes")
    labels = _classes(reader, label)
    if split == "random":
        name, fixed = "random 10/10/80", None
    else:
        name, fixed = split, _labelled(reader.split(split), labels)

    def measure(x: Floats, seed: int) -> tuple[Floats, Floats]:
        return linear_probe(x, labels, fixed or random_split(labels, seed), seed)

    return list(_scores(runs, reader, measure, "node classification", name, seeds, device, at_best_scale))


def node_clustering(
    runs: Sequence[str | Path],
    data: str,
    *,
    label: str = "label",
    seeds: int = 10,
    device: torch.device | None = None,
) -> list[Score]:
    """Normalised mutual information and adjusted Rand index of k-means on nodes, k the number of classes."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    reader = _reader(runs, data, Nodes, "nodes")
    labels = _classes(reader, label)
    known = labels >= 0

    def measure(x: Floats, seed: int) -> Metrics:
        found = KMeans(int(labels.max()) + 1, n_init=10, random_state=seed).fit_predict(x[known])
        truth = labels[known]
        return {"nmi": normalized_mutual_info_score(truth, found), "ari": adjusted_rand_score(truth, found)}

    return list(_scores(runs, reader, measure, "node clustering", "all nodes", seeds, device))


def graph_classification(
    runs: Sequence[str | Path],
    data: str,
    *,
    label: str = "label",
    classifier: str = "svm",
    seeds: int = 1,
    device: torch.device | None = None,
) -> list[Score]:
    """Accuracy on graphs over ten stratified folds; the classifier's strength is chosen inside the training folds.

    Args:
        runs: run folders, one a pre-training seed.
        data: what the runs' reader takes.
        label: of the graphs.
        classifier: svm (radial basis functions) or logistic.
        seeds: of folds and of untrained encoders.

    Raises:
        UserError: the data have no such label, or samples are not graphs.
    """
    if classifier not in ("svm", "logistic"):
        raise UserError(f"no classifier is called {classifier!r}; there are: svm, logistic")
    reader = _reader(runs, data, Collection, "graphs")
    labels = _classes(reader, label)

    def measure(x: Floats, seed: int) -> Metrics:
        return {"accuracy": float(np.mean(folds(x, labels, classifier, seed)))}

    split = f"{FOLDS} folds"
    return list(_scores(runs, reader, measure, f"graph classification ({classifier})", split, seeds, device))


def link_prediction(
    runs: Sequence[str | Path], data: str, *, seeds: int = 5, device: torch.device | None = None
) -> list[Score]:
    """AUC and average precision of telling held-out edges from pairs without one, by a logistic on x_u × x_v.

    The runs must have been trained with --hold-edges, so that no encoder has seen the edges that are asked for.

    Raises:
        UserError: no edges were held out, or samples are not nodes.
    """
    reader = _reader(runs, data, Nodes, "nodes")
    held = reader.held_edges
    if not held.shape[1]:
        raise UserError(f"{runs[0]} was trained on all edges, so links prove nothing: pre-train with --hold-edges 0.1")
    measure = partial(_links, reader.edges(), held)
    return list(_scores(runs, reader, measure, "link prediction", "held-out edges", seeds, device))


# ---- how features are judged


def linear_probe(x: Floats, labels: Ints, parts: Parts, seed: int) -> tuple[Floats, Floats]:
    """Validation and test accuracy [scales] of a linear layer at its epoch of best validation accuracy.

    Scale decides how far a layer gets before it overfits, and encoders differ in it a hundredfold; layers on all
    scales are trained side by side, so that none is favoured.
    """
    rows = {part: torch.from_numpy(x[numbers]) for part, numbers in parts.items()}
    truth = {part: torch.from_numpy(labels[numbers]) for part, numbers in parts.items()}
    size = float(rows["train"].square().mean().sqrt()) or 1.0
    scales = torch.tensor([1.0, *(scale / size for scale in PROBE_SCALES)])
    classes, width, count = int(labels.max()) + 1, x.shape[1], len(scales)
    start = torch.rand(width + 1, 1, classes, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    weight = (start / width**0.5).repeat(1, count, 1).requires_grad_()  # the last row is the bias
    optimizer = torch.optim.Adam([weight], lr=PROBE_RATE, weight_decay=PROBE_DECAY)

    def logits(part: str, weight: Tensor) -> Tensor:  # [n, classes, scales]
        out = (rows[part] @ weight[:-1].flatten(1)).view(-1, count, classes)
        return (out * scales[:, None] + weight[-1]).transpose(1, 2)

    def accuracy(part: str, weight: Tensor) -> Tensor:  # [scales]
        return (logits(part, weight).argmax(1) == truth[part][:, None]).double().mean(0)

    best, kept = torch.full((count,), -1.0, dtype=torch.float64), weight.detach().clone()
    for _ in range(PROBE_EPOCHS):
        optimizer.zero_grad()
        goal = truth["train"][:, None].expand(-1, count)
        (nn.functional.cross_entropy(logits("train", weight), goal) * count).backward()
        optimizer.step()
        with torch.no_grad():
            right = accuracy("val", weight)
            kept = torch.where((right >= best)[:, None], weight, kept)
            best = torch.maximum(best, right)
    return best.numpy(), accuracy("test", kept).detach().numpy()


def at_best_scale(found: Sequence[tuple[Floats, Floats]]) -> dict[str, tuple[float, ...]]:
    """Test accuracies at the one scale whose mean validation accuracy over the seeds is best; test chooses nothing."""
    scale = int(np.mean([val for val, _ in found], 0).argmax())
    return {"accuracy": tuple(float(test[scale]) for _, test in found)}


def folds(x: Floats, labels: Ints, classifier: str, seed: int) -> list[float]:
    """Accuracy on each of ten stratified folds."""
    from sklearn.model_selection import StratifiedKFold, train_test_split

    found = []
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, labels):
        inner, outer = train_test_split(fit, test_size=0.2, random_state=seed, stratify=labels[fit])
        tried = [_fit(x[inner], labels[inner], classifier, one).score(x[outer], labels[outer]) for one in STRENGTHS]
        best = _fit(x[fit], labels[fit], classifier, STRENGTHS[int(np.argmax(tried))])
        found.append(float(best.score(x[test], labels[test])))
    return found


def _fit(x: Floats, labels: Ints, classifier: str, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = SVC(C=strength) if classifier == "svm" else LogisticRegression(C=strength, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lbfgs at its limit: validation chooses the strength
        return make_pipeline(StandardScaler(), model).fit(x, labels)


def _links(edges: Ints, held: Ints, x: Floats, seed: int) -> Metrics:
    """Fitted on edges that the encoder saw and as many random pairs; tested on those held out, likewise."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    chance = np.random.default_rng(seed)
    seen = edges[:, edges[0] < edges[1]]
    known = np.concatenate([_keys(edges, len(x)), _keys(held, len(x)), _keys(held[::-1], len(x))])
    pairs, truth = {}, {}
    for part, positive in (("train", seen), ("test", held)):
        negative = _strangers(known, len(x), positive.shape[1], chance)
        both = np.concatenate([positive, negative], 1)
        pairs[part] = x[both[0]] * x[both[1]]
        truth[part] = np.repeat([1, 0], [positive.shape[1], negative.shape[1]])
    guess = _fit(pairs["train"], truth["train"], "logistic", 1.0).decision_function(pairs["test"])
    return {"auc": roc_auc_score(truth["test"], guess), "ap": average_precision_score(truth["test"], guess)}


def _keys(edges: Ints, nodes: int) -> Ints:
    keys: Ints = edges[0] * nodes + edges[1]
    return keys


def _strangers(known: Ints, nodes: int, count: int, chance: np.random.Generator) -> Ints:
    """[2, count] random pairs of different nodes without an edge."""
    pairs = chance.integers(0, nodes, (2, 4 * count + 100))
    good = (pairs[0] != pairs[1]) & ~np.isin(_keys(pairs, nodes), known)
    return pairs[:, good][:, :count]


def _labelled(parts: Parts, labels: Ints) -> Parts:
    return {part: numbers[labels[numbers] >= 0] for part, numbers in parts.items()}


def random_split(labels: Ints, seed: int) -> Parts:
    """A tenth of the labelled nodes to train, a tenth to validate, the rest to test."""
    nodes = np.random.default_rng(seed).permutation(np.flatnonzero(labels >= 0))
    tenth = len(nodes) // 10
    return {"train": nodes[:tenth], "val": nodes[tenth : 2 * tenth], "test": nodes[2 * tenth :]}


# ---- what is judged


def _reader(runs: Sequence[str | Path], data: str, wanted: type[GraphReader], samples: str) -> Any:
    reader = describe(runs[0]).make_reader(data)
    if not isinstance(reader, wanted):
        raise UserError(f"{runs[0]} was trained on other samples than {samples}; ask what fits it, or change --level")
    return reader


def _classes(reader: GraphReader, label: str) -> Ints:
    """Class numbers, −1 where there is no label."""
    if reader.sees(label):
        raise UserError(f"the encoder was trained on {label!r}, so a probe of it proves nothing: pre-train without it")
    values = np.asarray(reader.labels(label))
    known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
    classes = np.unique(values[known])
    return np.where(known, np.searchsorted(classes, values).clip(max=len(classes) - 1), -1).astype(np.int64)


def _scores(
    runs: Sequence[str | Path],
    reader: GraphReader,
    measure: Measure,
    task: str,
    split: str,
    seeds: int,
    device: torch.device | None,
    gather: Gather | None = None,
) -> Iterator[Score]:
    """Trained encoders, untrained ones and raw features, each over the seeds."""
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, not {seeds}")
    saved = [describe(run) for run in runs]
    trained = [_features(load(run), one, reader, device) for run, one in zip(runs, saved, strict=True)]
    fresh: list[NDArray[Any]] = []
    for seed in range(min(seeds, max(len(runs), 5))):  # drawing more encoders tells little more
        fresh.append(_features(saved[0].make_encoder(FRESH + seed), saved[0], reader, device))
    raw = reader.raw()
    assert raw is not None
    for name, kinds in ((f"trained ({saved[0].method})", trained), ("untrained", fresh), ("raw", [raw])):
        count = max(seeds, len(kinds))
        found = [measure(kinds[seed % len(kinds)], seed) for seed in range(count)]
        for metric, values in (gather or _each_metric)(found).items():
            yield Score(name, task, split, metric, values)


def _each_metric(found: Sequence[Metrics]) -> dict[str, tuple[float, ...]]:
    return {metric: tuple(float(one[metric]) for one in found) for metric in found[0]}


def _features(encoder: Encoder, saved: Saved, reader: GraphReader, device: torch.device | None) -> Floats:
    size = len(reader) if reader.together else 512
    made = embed(encoder, reader, saved.make_view(), saved.registry, batch_size=size, device=device)
    if made.broken:
        first = made.broken[0]
        raise UserError(f"{len(made.broken)} samples cannot be read, the first is {first.name}; remove them first")
    features: Floats = made.instances.numpy()
    return features
