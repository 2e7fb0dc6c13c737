"""Reads graphs: many of them, or the nodes of one that is taken whole or sampled around each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Facts, Reader, Sample
from unlabeled.errors import BrokenItem, UserError, nearest
from unlabeled_graph import features
from unlabeled_graph.batches import about
from unlabeled_graph.graphs import Graphs, Ints, Parts, degrees, offsets, return_probabilities
from unlabeled_graph.sources import find

LEVELS = ("auto", "node", "graph")
SHOWN = 6  # neighbours of a node that are named to a person


def open_graphs(
    source: str,
    *,
    facts: Facts | None = None,
    level: Literal["auto", "node", "graph"] = "auto",
    scale: features.Scale = "auto",
    nodes: str | None = None,
    exclude: list[str] | None = None,
    directed: bool = False,
    self_loops: bool = False,
    duplicates: bool = False,
    missing: Literal["refuse", "zero"] = "refuse",
    hold_edges: float = 0.0,
    whole: int = 50_000,
    fanout: list[int] | None = None,
) -> GraphReader:
    """A reader of the graphs, or of the nodes, behind a path or a name.

    Args:
        source: a Planetoid or TU folder, an edge list, an .npz, or pyg:CLASS/NAME.
        facts: a trained encoder's; features are read with them, and the fitting options are not used.
        level: what a sample is: a graph, or a node; auto: a node where there is one graph.
        scale: of attributes: rows (sum 1), columns (mean 0, deviation 1) or none; auto: rows for bags of words.
        nodes: the node table beside an edge list.
        exclude: columns of the node table that the encoder must not see.
        directed: keep the direction of edges; else each goes both ways.
        self_loops: keep edges from a node to itself.
        duplicates: keep edges that are there several times.
        missing: refuse features that are not a number, or take zero for them.
        hold_edges: share of the edges that nobody sees, for `evaluate-links`; always the same ones.
        whole: up to so many nodes a graph whose nodes are samples is taken whole at each step; above, neighbours
            are sampled.
        fanout: neighbours sampled at each hop; none: 10, 10.

    Raises:
        UserError: the source cannot be read, or does not fit the facts.
    """
    graphs = find(source, nodes, exclude).tidied(directed=directed, self_loops=self_loops, duplicates=duplicates)
    if not 0 <= hold_edges < 1:
        raise UserError(f"hold_edges is a share: from 0 to below 1, not {hold_edges}")
    graphs, held = graphs.without(hold_edges)
    if level not in LEVELS:
        raise UserError(f"level cannot be {level!r}; {nearest(level, LEVELS)}")
    if facts is None:
        chosen = level if level != "auto" else ("node" if len(graphs.sizes) == 1 else "graph")
        storage = "graphs" if chosen == "graph" else "whole" if graphs.nodes <= whole else "sampled"
        hops = [int(one) for one in fanout or (10, 10)]
        if min(hops) < 1:
            raise UserError(f"fanout is how many neighbours to take at each hop, 1 or more, not {hops}")
        facts = {
            "version": 1,
            "storage": storage,
            "features": features.fit(graphs, scale),
            "coords": 1 if storage == "sampled" else 3,
            "fanout": hops,
        }
    made: GraphReader = READERS[facts["storage"]](graphs, facts, directed=directed, fill=missing == "zero")
    made.held_edges = held
    return made


class GraphReader(Reader):
    """What all levels share: features, places, labels and splits of tidied graphs.

    x [N, V] and edge_index [2, E] are of all graphs. Places are return probabilities of random walks.
    """

    level: str
    held_edges: Ints  # [2, H] kept from everybody, the smaller node first

    def __init__(self, graphs: Graphs, facts: Facts, *, directed: bool, fill: bool):
        self.facts, self.graphs, self.directed = facts, graphs, directed
        self.notices = self._notices(graphs, facts)
        x = features.apply(graphs, facts["features"])
        gaps = np.asarray(np.isnan(x).any(1))
        if fill:
            x = np.nan_to_num(x, copy=False)
        elif gaps.any():
            self._refuse(gaps)
        self.x = torch.from_numpy(x)
        self.edge_index = torch.from_numpy(graphs.edges)

    def _notices(self, graphs: Graphs, facts: Facts) -> list[str]:
        notes = [f"{what}: {said}" for what, said in graphs.counts.items() if said != "none"]
        if facts["features"]["degrees"] is not None:
            notes.append("the nodes have no features; their degree is used instead")
        empty = int((graphs.sizes == 0).sum())
        return [*notes, f"{empty} graphs have no nodes and count as broken"] if empty else notes

    def _refuse(self, gaps: NDArray[np.bool_]) -> None:
        """Say which node cannot be used."""
        node = self._node(int(np.flatnonzero(gaps)[0]))
        raise UserError(
            f"{int(gaps.sum())} nodes of {self.graphs.title} have features that are not a number, the first is {node}: "
            "mend them, or take zero for them with --missing zero"
        )

    def edges(self) -> Ints:
        """[2, E] of all graphs, as encoders see them."""
        return self.edge_index.numpy()

    def _node(self, index: int) -> str:
        return str(index) if self.graphs.names is None else self.graphs.names[index]

    def _table(self) -> dict[str, NDArray[Any]]:
        """Labels of the samples by name."""
        raise NotImplementedError

    def labels(self, spec: str) -> NDArray[Any]:
        """A label by name, "label" where the source has one only; a number that is missing is NaN."""
        table = self._table()
        if spec not in table:
            raise UserError(f"{self.graphs.title} has no label {spec!r}; {nearest(spec, table)}")
        return table[spec]

    def sees(self, spec: str) -> bool:
        return spec in self.graphs.columns

    def split(self, name: str = "public") -> Parts:
        """Sample numbers of train, val and test of the source's own split.

        Raises:
            UserError: the source has no split of that name.
        """
        if name not in self.graphs.splits:
            raise UserError(f"{self.graphs.title} has no split {name!r}; {nearest(name, self.graphs.splits)}")
        return self.graphs.splits[name]

    def summary(self) -> list[dict[str, str]]:
        graphs = self.graphs
        table = {
            "a sample is": f"a {self.level}",
            "graphs": f"{len(graphs.sizes):,}",
            "nodes": f"{graphs.nodes:,}",
            "edges": f"{self.edges().shape[1]:,}, each way counted",
            "features": features.described(self.facts["features"]),
            **graphs.counts,
            "labels": ", ".join(self._table()) or "none",
            "splits": ", ".join(f"{name} ({_sizes(parts)})" for name, parts in graphs.splits.items()) or "none",
        }
        return [{"what": what, "value": value} for what, value in table.items()]

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no {self.level} {index}; there are {len(self)}")


def _sizes(parts: Parts) -> str:
    return ", ".join(f"{name} {len(rows):,}" for name, rows in parts.items())


class Collection(GraphReader):
    """Many graphs, a sample each: {"x" [n, V], "coords" [n, 3], "edge_index" [2, e]}."""

    level = "graph"

    def __init__(self, graphs: Graphs, facts: Facts, *, directed: bool, fill: bool):
        self._broken = np.zeros(graphs.nodes, bool)
        super().__init__(graphs, facts, directed=directed, fill=fill)
        self.coords = torch.from_numpy(return_probabilities(graphs))
        owner = np.repeat(np.arange(len(graphs.sizes)), graphs.sizes)
        edges = np.bincount(owner[graphs.edges[1]], minlength=len(graphs.sizes))
        self._sizes, self._edges = torch.from_numpy(graphs.sizes), torch.from_numpy(edges)
        self._nodes_at, self._edges_at = (torch.from_numpy(offsets(counts)) for counts in (graphs.sizes, edges))
        bad = np.bincount(owner[self._broken], minlength=len(graphs.sizes)) > 0
        self._bad = torch.from_numpy(bad | (graphs.sizes == 0))

    def _refuse(self, gaps: NDArray[np.bool_]) -> None:
        self._broken = gaps  # only the graphs that have them cannot be read

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Sample:
        self._check(index)
        if self._bad[index]:
            empty = not self._sizes[index]
            raise BrokenItem("the graph has no nodes" if empty else "a feature of a node is not a number")
        node, edge = self._nodes_at[index], self._edges_at[index]
        nodes, edges = slice(node, self._nodes_at[index + 1]), slice(edge, self._edges_at[index + 1])
        return {"x": self.x[nodes], "coords": self.coords[nodes], "edge_index": self.edge_index[:, edges] - node}

    def batch(self, indices: Sequence[int]) -> Batch | None:
        chosen = torch.as_tensor(indices)
        if self._bad[chosen].any():
            return None
        sizes, counts = self._sizes[chosen], self._edges[chosen]
        nodes, edges = _ranges(self._nodes_at[chosen], sizes), _ranges(self._edges_at[chosen], counts)
        shift = (sizes.cumsum(0) - sizes - self._nodes_at[chosen]).repeat_interleave(counts)
        return {
            "x": self.x[nodes],
            "coords": self.coords[nodes],
            "edge_index": self.edge_index[:, edges] + shift,
            "sizes": sizes,
        }

    def name(self, index: int) -> str:
        return f"graph {index}"

    def describe(self, index: int) -> dict[str, str]:
        """Its nodes and edges; an edge that goes both ways is one."""
        self._check(index)
        edges = int(self._edges[index])
        return {"nodes": str(int(self._sizes[index])), "edges": str(edges if self.directed else edges // 2)}

    def raw(self) -> NDArray[np.float32]:
        """Mean features of a graph's nodes, their number, and the mean degree."""
        sizes = self.graphs.sizes
        owner = np.repeat(np.arange(len(sizes)), sizes)
        columns = np.concatenate([np.nan_to_num(self.x.numpy()), degrees(self.graphs)[:, None]], 1)
        total = np.zeros((len(sizes), columns.shape[1]))
        np.add.at(total, owner, columns)
        return np.concatenate([total / sizes.clip(min=1)[:, None], sizes[:, None]], 1).astype(np.float32)

    def _table(self) -> dict[str, NDArray[Any]]:
        return dict(self.graphs.graph_labels)


class Nodes(GraphReader):
    """What node levels share."""

    level = "node"

    def __len__(self) -> int:
        return len(self.x)

    def name(self, index: int) -> str:
        return self._node(index)

    def describe(self, index: int) -> dict[str, str]:
        """How many edges lead to it, and where the first few come from."""
        self._check(index)
        sources = self._sources(index)
        near = [self._node(int(node)) for node in sources[:SHOWN]]
        more = [f"{len(sources) - SHOWN} more"] if len(sources) > SHOWN else []
        return {"edges": str(len(sources)), "next to": ", ".join([*near, *more])}

    def _sources(self, index: int) -> Tensor:
        """Where the edges that lead to a node come from [degree]: edges are sorted by their target."""
        source, target = self.edge_index
        first, last = torch.searchsorted(target.contiguous(), torch.tensor([index, index + 1])).tolist()
        found: Tensor = source[first:last]
        return found

    def raw(self) -> NDArray[np.float32]:
        """The nodes' features."""
        return self.x.numpy()

    def _table(self) -> dict[str, NDArray[Any]]:
        names, x = self.graphs.columns, self.graphs.attributes
        seen = {} if x is None else {name: x[:, number] for number, name in enumerate(names)}
        return {**self.graphs.node_labels, **seen}


class WholeGraph(Nodes):
    """The nodes of a graph that fits in a step: a sample is all of the graph and the number of a node, "root" []."""

    together = True

    def __init__(self, graphs: Graphs, facts: Facts, *, directed: bool, fill: bool):
        super().__init__(graphs, facts, directed=directed, fill=fill)
        self._graph = {
            "x": self.x,
            "coords": torch.from_numpy(return_probabilities(graphs)),
            "edge_index": self.edge_index,
        }

    def __getitem__(self, index: int) -> Sample:
        self._check(index)
        return {**self._graph, "root": torch.tensor(index)}

    def batch(self, indices: Sequence[int]) -> Batch | None:
        """The graph with the nodes that are asked for; each K times gives K views."""
        return about(self._graph, torch.as_tensor(indices))


class SampledGraph(Nodes):
    """The nodes of a graph too large for a step: a sample refers to all of it, and views sample around "root" []."""

    def __init__(self, graphs: Graphs, facts: Facts, *, directed: bool, fill: bool):
        super().__init__(graphs, facts, directed=directed, fill=fill)
        rowptr = torch.from_numpy(offsets(degrees(graphs)))
        self._graph = {
            "x": self.x,
            "rowptr": rowptr,  # [N + 1] where the sources of each node's edges begin in col [E]
            "col": self.edge_index[0].contiguous(),
            "fanout": torch.tensor([WHOLE_FANOUT] * len(facts["fanout"])),
            "directed": torch.tensor(directed),
        }
        self.edge_index = torch.empty(2, 0, dtype=torch.int64)  # col has them, once is enough
        self.graphs = replace(graphs, edges=np.empty((2, 0), np.int64), attributes=None)

    def edges(self) -> Ints:
        rowptr, col = self._graph["rowptr"], self._graph["col"]
        target = torch.arange(len(rowptr) - 1).repeat_interleave(rowptr.diff())
        return torch.stack([col, target]).numpy()

    def _sources(self, index: int) -> Tensor:
        first, last = self._graph["rowptr"][index : index + 2].tolist()
        found: Tensor = self._graph["col"][first:last]
        return found

    def __getitem__(self, index: int) -> Sample:
        self._check(index)
        return {**self._graph, "root": torch.tensor(index)}


WHOLE_FANOUT = 30
"""Neighbours of a node that an undisturbed view takes at most, evenly spread, so that hubs stay bounded."""

READERS: dict[str, type[GraphReader]] = {"graphs": Collection, "whole": WholeGraph, "sampled": SampledGraph}


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """start, start + 1 … of every range, one after another."""
    before = counts.cumsum(0) - counts
    return (starts - before).repeat_interleave(counts) + torch.arange(int(counts.sum()))
