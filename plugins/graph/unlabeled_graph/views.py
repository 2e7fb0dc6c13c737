"""Random views of graphs. A graph, a copy of one, or an ego-net is changed by draws of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unlabeled.contract import Batch, Facts, Kind, Sample, View
from unlabeled.errors import UserError
from unlabeled.masking import lowest
from unlabeled.randomness import Draws
from unlabeled_graph.batches import edge_owners, flat, graphs_of, induced, owners, per_graph, places, roots
from unlabeled_graph.sampling import FANOUT, KEY

Rate = float | tuple[float, float]
"""A probability, or the bounds between which each view has its own."""
STILL: tuple[Kind, ...] = ("plain", "whole")


class GraphView(View):
    """What all views share: on a graph that is sampled, each also samples the neighbours.

    Only then has a view a sample stage, since one makes the core read samples one by one. Known transforms move the
    features of all nodes of a graph on in a circle, by quarters of their columns: node-wise, as GraphTER's (arXiv
    1911.08142). Where each node of one graph is a sample there are none.
    """

    def __new__(cls, facts: Facts, **options: Any) -> GraphView:
        return super().__new__(_sampling(cls) if facts["storage"] == "sampled" else cls)

    def __init__(self, facts: Facts):
        self._storage, self._fanout = facts["storage"], torch.tensor(facts["fanout"])
        turns = min(4, facts["features"]["width"])
        self.transforms = turns if turns > 1 and self._storage != "whole" else 0

    def __reduce__(self) -> tuple[Any, ...]:
        plain = type(self).__mro__[2] if isinstance(self, _Sampling) else type(self)
        return _restore, (plain, isinstance(self, _Sampling), self.__dict__)

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        x = batch["x"]
        shift = which[owners(batch), None] * x.shape[1] // self.transforms
        columns = torch.arange(x.shape[1], device=x.device)
        return {**batch, "x": x.gather(1, (columns - shift) % x.shape[1])}

    def _needs_parts(self, name: str) -> None:
        if self._storage == "whole":
            raise UserError(
                f"view {name!r} leaves nodes out, and here each node of the graph is a sample: choose --view drop, or "
                "sample neighbours with --whole 0"
            )

    def _refuse_molecules(self, chemistry: bool, name: str, what: str) -> None:
        if chemistry:
            raise UserError(f"view {name!r} {what}, which breaks molecules: choose --view drop with --view.edges 0")


class _Sampling:
    """The sample stage of views of a sampled graph: notes what to sample by, and all else is done at once."""

    _fanout: Tensor

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        return sample if kind == "whole" else {**sample, KEY: draws.keys, FANOUT: self._fanout}


def _sampling(cls: type[GraphView]) -> type[GraphView]:
    return type(cls.__name__, (_Sampling, cls), {})


def _restore(plain: type[GraphView], sampling: bool, state: dict[str, Any]) -> GraphView:
    view: GraphView = View.__new__(_sampling(plain) if sampling else plain)
    view.__dict__.update(state)
    return view


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise UserError(f"{name} is a share: from 0 to below 1, not {value}")
    return value


def _bounds(name: str, value: Rate) -> tuple[float, float]:
    low, high = value if isinstance(value, tuple | list) else (value, value)  # YAML has lists
    low, high = _share(name, low), _share(name, high)
    if low > high:
        raise UserError(f"{name} goes from the smaller to the larger share, not from {low} to {high}")
    return low, high


class Drop(GraphView):
    """Drops edges and blanks feature columns, each with a probability (GRACE, arXiv 2006.04131; CCA-SSG, 2106.12484).

    Two numbers are bounds between which each view of each graph has its own probability; GRACE gives its two views one
    of each. Local views keep half as much. Plain and whole views are the data.

    Args:
        facts: of the reader.
        edges: probability of an edge to be dropped; each direction is drawn by itself, as the papers do.
        features: probability of a feature to be zero on all nodes of the graph.
        chemistry: refuse to drop bonds.
    """

    def __init__(self, facts: Facts, *, edges: Rate = 0.4, features: Rate = 0.1, chemistry: bool = False):
        super().__init__(facts)
        self._edges, self._features = _bounds("edges", edges), _bounds("features", features)
        self._width = facts["features"]["width"]
        if self._edges[1]:
            self._refuse_molecules(chemistry, "drop", "drops edges")

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in STILL:
            return batch
        draws = per_graph(batch, draws)
        edges = _rates(draws.fork("edges"), self._edges, kind)
        features = _rates(draws.fork("features"), self._features, kind)
        columns = draws.uniform(self._width) >= features if self._features[1] else None
        batch = flat(batch, columns)
        if not self._edges[1]:
            return batch
        owner = edge_owners(batch)
        keep = draws.uniform_at(owner, places(owner, graphs_of(batch))) >= edges[owner, 0]
        return {**batch, "edge_index": batch["edge_index"][:, keep]}


def _rates(draws: Draws, bounds: tuple[float, float], kind: Kind) -> Tensor:
    """[graphs, 1] of each view; local ones lose half of what is left as well."""
    rate = draws.uniform(1) * (bounds[1] - bounds[0]) + bounds[0]
    return rate if kind == "global" else (1 + rate) / 2


class NodeDrop(GraphView):
    """Drops round(share × n) nodes of each graph with their edges, never the node that it is about (2010.13902).

    Local views keep half as many. Plain and whole views are the data.
    """

    def __init__(self, facts: Facts, *, share: float = 0.2, chemistry: bool = False):
        super().__init__(facts)
        self._share = _share("share", share)
        self._needs_parts("node_drop")
        self._refuse_molecules(chemistry, "node_drop", "drops nodes")

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in STILL:
            return batch
        batch, draws = flat(batch), per_graph(batch, draws)
        share = self._share if kind == "global" else (1 + self._share) / 2
        owner = owners(batch)
        score = draws.uniform_at(owner, places(owner, graphs_of(batch)))[None]
        count = torch.minimum((share * batch["sizes"]).round().long(), batch["sizes"] - 1)
        return induced(batch, ~lowest(score, ~roots(batch)[None], owner[None], count)[0])


class RandomWalk(GraphView):
    """Keeps the nodes that random walks from one node visit, and the edges between them (GCC, arXiv 2006.09963).

    Four walks of share × n / 2 steps start at a random node, or at the node that an ego-net is about. Local views
    walk half as far. Plain and whole views are the data.
    """

    def __init__(self, facts: Facts, *, share: float = 0.8, chemistry: bool = False):
        super().__init__(facts)
        self._share = _share("share", share)
        self._needs_parts("random_walk")
        self._refuse_molecules(chemistry, "random_walk", "cuts a part out of a graph")

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in STILL:
            return batch
        batch, draws = flat(batch), per_graph(batch, draws)
        sizes, starts = batch["sizes"], batch["sizes"].cumsum(0) - batch["sizes"]
        share = self._share if kind == "global" else self._share / 2
        first = batch.get("root", starts + (draws.uniform(1)[:, 0] * sizes).long())
        at = first[:, None].expand(-1, WALKERS).flatten()
        length = (share * sizes * 2 / WALKERS).ceil().long().repeat_interleave(WALKERS)
        graph = torch.arange(len(sizes), device=at.device).repeat_interleave(WALKERS)
        place = torch.arange(len(at), device=at.device) % WALKERS
        keep = torch.zeros(len(batch["x"]), dtype=torch.bool, device=at.device)
        keep[at] = True
        walk = Walk(batch)
        for step in range(int(length.max())):
            at = torch.where(step < length, walk.step(at, draws.uniform_at(graph, place)), at)
            keep[at] = True
        return induced(batch, keep)


WALKERS = 4


class Walk:
    """Random walks on a flat batch whose edges are sorted by target; a node without edges is never left."""

    def __init__(self, batch: Batch):
        self.source, target = batch["edge_index"]
        nodes = len(batch["x"])
        self.degree = torch.zeros(nodes, dtype=torch.int64, device=target.device)
        self.degree.index_add_(0, target, torch.ones_like(target))
        self.start = self.degree.cumsum(0) - self.degree

    def step(self, at: Tensor, uniform: Tensor) -> Tensor:
        """The next node of each walk: a random neighbour, chosen by numbers in [0, 1)."""
        if not len(self.source):
            return at
        degree = self.degree[at]
        chosen = self.start[at] + torch.minimum((uniform * degree).long(), (degree - 1).clamp(min=0))
        return torch.where(degree > 0, self.source[chosen.clamp(max=len(self.source) - 1)], at)


class Diffusion(GraphView):
    """Joins each node with where random walks from it end: samples of graph diffusion (GDC, arXiv 1911.05485; MVGRL,
    2006.05582).

    A walk stops at each step with probability alpha (ppr) or takes Poisson(time) steps (heat), so that its end is a
    draw from the node's row of the diffusion matrix. Feature columns are blanked as in `drop`. Local views join half
    as many. Plain and whole views are the data.

    Args:
        facts: of the reader.
        kernel: ppr or heat.
        alpha: teleport probability of ppr.
        time: mean length of a walk of heat.
        neighbours: walks from each node.
        features: probability of a feature to be zero on all nodes of the graph.
        chemistry: refuse to make edges that are no bonds.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        kernel: Literal["ppr", "heat"] = "ppr",
        alpha: float = 0.15,
        time: float = 3.0,
        neighbours: int = 8,
        features: float = 0.1,
        chemistry: bool = False,
    ):
        super().__init__(facts)
        if kernel not in ("ppr", "heat"):
            raise UserError(f"kernel cannot be {kernel!r}; there are: ppr, heat")
        if not 0 < alpha < 1 or time <= 0 or neighbours < 1:
            raise UserError("diffusion needs alpha between 0 and 1, time above 0 and neighbours from 1")
        self._kernel, self._alpha, self._time, self._neighbours = kernel, alpha, time, neighbours
        self._features, self._width = _share("features", features), facts["features"]["width"]
        self._refuse_molecules(chemistry, "diffusion", "makes new edges")

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in STILL:
            return batch
        draws = per_graph(batch, draws)
        columns = ~draws.chance(self._features, self._width) if self._features else None
        batch = flat(batch, columns)
        count = self._neighbours if kind == "global" else (self._neighbours + 1) // 2
        owner = owners(batch)
        graph = owner.repeat_interleave(count)
        place = (places(owner, graphs_of(batch))[:, None] * count + torch.arange(count, device=owner.device)).flatten()
        length = self._lengths(draws.uniform_at(graph, place))
        start = torch.arange(len(owner), device=owner.device).repeat_interleave(count)
        at, walk = start, Walk(batch)
        for step in range(LONGEST):
            at = torch.where(step < length, walk.step(at, draws.uniform_at(graph, place)), at)
        return {**batch, "edge_index": _without_loops(at, start)}

    def _lengths(self, uniform: Tensor) -> Tensor:
        """Steps of each walk, at most LONGEST, from uniform numbers."""
        if self._kernel == "ppr":
            length = ((1 - uniform).log() / math.log(1 - self._alpha)).long()
        else:
            steps = torch.arange(LONGEST, device=uniform.device, dtype=torch.float64)
            below = (steps * math.log(self._time) - self._time - (steps + 1).lgamma()).exp().cumsum(0)
            length = torch.searchsorted(below, uniform.double(), right=True)
        return length.clamp(max=LONGEST)


LONGEST = 24  # steps of a walk: at alpha .15 two walks in a hundred would go on


def _without_loops(source: Tensor, target: Tensor) -> Tensor:
    """[2, E] without edges from a node to itself, which convolutions add by themselves."""
    keep = source != target
    return torch.stack([source[keep], target[keep]])


class Unchanged(GraphView):
    """The data as they are, for methods that hide instead."""


VIEWS: Mapping[str, Callable[..., View]] = {
    "drop": Drop,
    "node_drop": NodeDrop,
    "random_walk": RandomWalk,
    "diffusion": Diffusion,
    "none": Unchanged,
}
