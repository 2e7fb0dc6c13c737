"""Graphs in memory as plain arrays, before anything is fitted: what every source gives and every reader takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Parts = Mapping[str, Ints]
"""Sample numbers of "train", "val" and "test"."""

MOST_WALKS = 10**8  # pairs of edges that meet, above which three- and four-step walks cost too much


@dataclass(frozen=True)
class Graphs:
    """Graphs one after another: nodes are numbered over all of them, those of a graph are neighbours in number."""

    title: str  # as the user named the source
    edges: Ints  # [2, E] source and target
    sizes: Ints  # [G] nodes of each graph
    attributes: Floats | None = None  # [N, F]
    codes: Ints | None = None  # [N, C] categories of nodes
    names: Sequence[str] | None = None  # [N]
    node_labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [N] each
    graph_labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [G] each
    splits: Mapping[str, Parts] = field(default_factory=dict)
    columns: Sequence[str] = ()  # names of the attributes, where they have some
    counts: Mapping[str, str] = field(default_factory=dict)  # what tidying found, for `inspect`

    @property
    def nodes(self) -> int:
        return int(self.sizes.sum())

    def checked(self) -> Graphs:
        """Itself.

        Raises:
            UserError: no node, an edge to a node that does not exist, arrays of another length, infinite attributes.
        """
        nodes = self.nodes
        if nodes == 0:
            raise UserError(f"{self.title} has no nodes; give a graph with some")
        wrong = np.flatnonzero(((self.edges < 0) | (self.edges >= nodes)).any(0))
        if len(wrong):
            one, other = self.edges[:, wrong[0]]
            raise UserError(
                f"an edge of {self.title} joins nodes {one} and {other}, and the nodes are 0 to {nodes - 1}: "
                "mend the edges, or add the node"
            )
        for what, rows in (("node attributes", self.attributes), ("node categories", self.codes)):
            if rows is not None and len(rows) != nodes:
                raise UserError(f"{self.title} has {nodes} nodes and {len(rows)} rows of {what}; it needs one a node")
        for what, table, count in (
            ("nodes", self.node_labels, nodes),
            ("graphs", self.graph_labels, len(self.sizes)),
        ):
            for name, values in table.items():
                if len(values) != count:
                    raise UserError(
                        f"{self.title} has {count} {what} and {len(values)} labels {name!r}; it needs one for each"
                    )
        if self.attributes is not None and np.isinf(self.attributes).any():
            node = int(np.flatnonzero(np.isinf(self.attributes).any(1))[0])
            raise UserError(f"an attribute of node {node} of {self.title} is infinite; mend it")
        return self

    def tidied(self, *, directed: bool, self_loops: bool, duplicates: bool) -> Graphs:
        """Edges sorted by target, both ways unless directed, without self loops and repeats unless these are kept."""
        nodes = self.nodes
        source, target = self.edges
        loops = source == target
        counts = {"self loops": _said(int(loops.sum()), self_loops)}
        if not self_loops:
            source, target = source[~loops], target[~loops]
        keys = target * nodes + source
        distinct = _distinct(keys)
        counts["repeated edges"] = _said(len(keys) - len(distinct), duplicates)
        if not directed:
            keys = _both_ways(keys if duplicates else distinct, distinct, nodes, duplicates)
        elif not duplicates:
            keys = distinct
        keys.sort()
        return replace(self, edges=np.stack([keys % nodes, keys // nodes]), counts=counts)

    def without(self, share: float) -> tuple[Graphs, Ints]:
        """The graphs less a share of their edges, both ways, and those edges [2, H]: the same ones at every call."""
        if not share:
            return self, np.empty((2, 0), np.int64)
        source, target = self.edges
        chance = np.random.default_rng(0)
        low, high = np.minimum(source, target), np.maximum(source, target)
        keys = low * self.nodes + high
        pairs = _distinct(keys)
        held = np.sort(chance.permutation(pairs)[: round(share * len(pairs))])
        counts = {**self.counts, "edges held out": f"{len(held):,}"}
        edges = self.edges[:, ~np.isin(keys, held)]
        return replace(self, edges=edges, counts=counts), np.stack([held // self.nodes, held % self.nodes])


def _distinct(keys: Ints) -> Ints:
    """Each key once, sorted; np.unique hashes, which takes twenty times as long."""
    keys = np.sort(keys)
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    return keys[new]


def _both_ways(keys: Ints, distinct: Ints, nodes: int, duplicates: bool) -> Ints:
    """Edges, as target × nodes + source, and the reverse of those that are there one way only."""
    reverse = keys % nodes * nodes + keys // nodes
    if not duplicates:
        return _distinct(np.concatenate([keys, reverse]))
    return np.concatenate([keys, reverse[~np.isin(reverse, distinct)]])


def _said(count: int, kept: bool) -> str:
    return f"{count:,} {'kept' if kept else 'removed'}" if count else "none"


def degrees(graphs: Graphs) -> Ints:
    """[N] edges that end at each node."""
    return np.bincount(graphs.edges[1], minlength=graphs.nodes)


def offsets(counts: Ints) -> Ints:
    """[n + 1] where each of n consecutive parts begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def return_probabilities(graphs: Graphs) -> Floats:
    """[N, 3] in [0, 1]: a random walk from each node is back after 2, 3 and 4 steps (RWSE, arXiv 2110.07875).

    Three and four steps are left at 0 where hubs would make them dear.
    """
    from scipy import sparse

    nodes, (source, target) = graphs.nodes, graphs.edges
    out = np.bincount(source, minlength=nodes)
    walk = sparse.csr_array((1.0 / out[source], (source, target)), shape=(nodes, nodes), dtype=np.float64)
    back = walk.T.tocsr()
    found = np.zeros((nodes, 3))
    found[:, 0] = walk.multiply(back).sum(1)
    if int((out * np.bincount(target, minlength=nodes)).sum()) <= MOST_WALKS:
        two = (walk @ walk).tocsr()
        found[:, 1] = two.multiply(back).sum(1)
        found[:, 2] = two.multiply(two.T.tocsr()).sum(1)
    return found.clip(0, 1).astype(np.float32)
