"""Neighbour sampling (GraphSAGE, arXiv 1706.02216) in plain torch, for a whole batch of nodes at once.

A view's sample stage only notes the key of its draws and how many neighbours to take at each hop. The batch is cut
when samples are joined, where all ego-nets of it grow together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlabeled.contract import Batch, Sample
from unlabeled.randomness import Draws

KEY, FANOUT = "key", "fanout"


def cut(samples: Sequence[Sample]) -> Batch:
    """Disjoint ego-nets around the samples' nodes; without a key the neighbours are spread evenly, with no chance."""
    graph = samples[0]
    roots = torch.stack([sample["root"] for sample in samples])  # [B]
    draws = Draws(torch.cat([sample[KEY] for sample in samples])).fork("ego") if KEY in graph else None
    fanout: list[int] = graph[FANOUT].tolist()
    nodes, parents, hops = _grow(graph, roots, fanout, draws)
    B, total = len(roots), len(graph["rowptr"]) - 1
    there = nodes >= 0
    keys = torch.arange(B)[:, None] * total + nodes
    distinct, number = torch.unique(keys[there], return_inverse=True)
    numbers = torch.full_like(nodes, -1)
    numbers[there] = number
    child = there.clone()
    child[:, 0] = False
    edges = torch.stack([numbers[child], numbers.gather(1, parents)[child]])
    if not graph["directed"]:
        edges = torch.cat([edges, edges.flip(0)], 1)
    edges = _distinct(edges, len(distinct))
    near = torch.full((len(distinct),), len(fanout)).scatter_reduce_(0, number, hops.expand(B, -1)[there], "amin")
    return {
        "x": graph["x"][distinct % total],
        "coords": (near / max(1, len(fanout)))[:, None],
        "edge_index": edges,
        "sizes": torch.bincount(distinct // total, minlength=B),
        "root": numbers[:, 0],
    }


def _distinct(edges: Tensor, nodes: int) -> Tensor:
    """Each edge once, sorted by target, so that those of an ego-net are together."""
    keys = torch.unique(edges[1] * nodes + edges[0])
    return torch.stack([keys % nodes, keys // nodes])


def _grow(graph: Sample, roots: Tensor, fanout: list[int], draws: Draws | None) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes [B, S] (−1: nobody), the slot of the node that each was reached from [B, S], the hop of each slot [S]."""
    level, slots = roots[:, None], torch.zeros(1, dtype=torch.int64)
    nodes, parents, hops = [level], [slots], [slots]
    first = 0  # slot of the level's first node
    for hop, fan in enumerate(fanout):
        picked = _neighbours(graph, level, fan, draws)  # [B, W, f]
        width = picked.shape[-1]
        parents.append((first + torch.arange(level.shape[1])).repeat_interleave(width))
        first += level.shape[1]
        level = picked.flatten(1)
        hops.append(torch.full((level.shape[1],), hop + 1))
        nodes.append(level)
    B = len(roots)
    return torch.cat(nodes, 1), torch.cat(parents).expand(B, -1), torch.cat(hops)


def _neighbours(graph: Sample, nodes: Tensor, fan: int, draws: Draws | None) -> Tensor:
    """[B, W, f] up to `fan` neighbours of each node [B, W], −1 where there are no more."""
    rowptr = graph["rowptr"]
    there = nodes >= 0
    start = rowptr[nodes.clamp(min=0)]
    degree = torch.where(there, rowptr[nodes.clamp(min=0) + 1] - start, 0)
    slot = torch.arange(fan)
    if draws is None:
        slot = slot[: int(degree.max())]
        spread = slot * degree[..., None] // fan
        place = torch.where(degree[..., None] > fan, spread, slot.expand(spread.shape))
    else:
        place = _without_replacement(draws.uniform(nodes.shape[1], fan), degree)
    here = slot < degree[..., None]
    found: Tensor = graph["col"][torch.where(here, start[..., None] + place, 0)]
    return torch.where(here, found, -1)


def _without_replacement(uniform: Tensor, degree: Tensor) -> Tensor:
    """[B, W, f] distinct numbers below each degree [B, W], by Floyd's method; 0, 1, 2 … where the degree is at most f.

    Bentley and Floyd, "A sample of brilliance", CACM 1987.
    """
    fan = uniform.shape[-1]
    picks: list[Tensor] = []
    for turn in range(fan):
        last = (degree - fan + turn).clamp(min=0)
        pick = torch.minimum((uniform[..., turn].double() * (last + 1)).long(), last)
        for other in picks:
            pick = torch.where(other == pick, last, pick)
        picks.append(torch.where(degree > fan, pick, turn))
    return torch.stack(picks, -1)
