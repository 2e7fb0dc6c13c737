"""Batches of graphs, always flat: all nodes in one row, none of them padding.

flat    {"x" [N, V], "coords" [N, P], "edge_index" [2, E], "sizes" [G]} of G graphs one after another; ego-nets also
        have "root" [G], the node that each is about
copies  the same of one graph without "sizes", and "root" [K, M]: K views of it, about M nodes each; `flat` makes K
        disjoint copies, which a view does anyway as it changes them, and nobody else has to
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlabeled.contract import Batch, Sample
from unlabeled.errors import UserError
from unlabeled.layers import is_exporting
from unlabeled.randomness import Draws


def collate(samples: Sequence[Sample]) -> Batch:
    """A batch of whole graphs, of nodes of one graph, or of ego-nets that are cut here, all at once."""
    from unlabeled_graph import sampling

    first = samples[0]
    if "rowptr" in first:
        return sampling.cut(samples)
    if "root" in first:
        return about(first, torch.stack([sample["root"] for sample in samples]))
    sizes = torch.tensor([len(sample["x"]) for sample in samples])
    starts = (sizes.cumsum(0) - sizes).tolist()
    return {
        "x": torch.cat([sample["x"] for sample in samples]),
        "coords": torch.cat([sample["coords"] for sample in samples]),
        "edge_index": torch.cat([s["edge_index"] + start for s, start in zip(samples, starts, strict=True)], 1),
        "sizes": sizes,
    }


def about(graph: Sample, roots: Tensor) -> Batch:
    """The one graph, and the nodes that the batch is about; nodes that come K times ask for K views."""
    views = int((roots == roots[0]).sum())
    if len(roots) % views:
        raise UserError("a batch of one graph needs each of its nodes equally often, once a view")
    return {**graph, "root": roots.view(views, -1)}


def is_flat(batch: Batch) -> bool:
    """Whether each graph has nodes of its own already."""
    return "sizes" in batch


def graphs_of(batch: Batch) -> int:
    """G, the number of graphs or of copies."""
    return len(batch["sizes"]) if is_flat(batch) else len(batch["root"])


def flat(batch: Batch, columns: Tensor | None = None) -> Batch:
    """The batch with nodes of their own for each graph; columns [G, V] bool: features that stay in each."""
    x = batch["x"]
    if is_flat(batch):
        return batch if columns is None else {**batch, "x": x * columns.to(x.dtype)[owners(batch)]}
    roots = batch["root"]
    K, N = len(roots), len(x)
    if columns is not None:
        x = (x * columns.to(x.dtype)[:, None]).flatten(0, 1)
    elif K > 1:
        x = x.repeat(K, 1)
    shift = torch.arange(K, device=x.device) * N
    return {
        **batch,
        "x": x,
        "coords": batch["coords"].repeat(K, 1) if K > 1 else batch["coords"],
        "edge_index": (batch["edge_index"][:, None] + shift[:, None]).flatten(1),
        "sizes": torch.full((K,), N, device=x.device),
        "root": (roots + shift[:, None]).flatten(),
    }


def owners(batch: Batch) -> Tensor:
    """[N] the graph of each node of a flat batch."""
    sizes = batch["sizes"]
    if is_exporting():  # ONNX has no repeat_interleave of a known length
        place = torch.arange(batch["x"].shape[0], device=sizes.device)
        return (sizes.cumsum(0) <= place[:, None]).sum(1)
    numbers = torch.arange(sizes.shape[0], device=sizes.device)
    return numbers.repeat_interleave(sizes, output_size=batch["x"].shape[0])


def edge_owners(batch: Batch) -> Tensor:
    """[E] the graph of each edge of a flat batch."""
    return owners(batch)[batch["edge_index"][1]]


def places(owner: Tensor, graphs: int) -> Tensor:
    """The number of each node or edge within its graph, where those of a graph are together."""
    count = torch.zeros(graphs, dtype=torch.int64, device=owner.device).index_add_(0, owner, torch.ones_like(owner))
    return torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]


def per_graph(batch: Batch, draws: Draws) -> Draws:
    """A row of draws for each graph or copy; that of a copy depends on all nodes that the batch is about."""
    graphs = graphs_of(batch)
    return draws if len(draws) == graphs else draws.folded(graphs)


def induced(batch: Batch, keep: Tensor) -> Batch:
    """The subgraphs on the kept nodes [N] bool of a flat batch; every root must stay."""
    number = keep.cumsum(0) - 1
    edges = batch["edge_index"]
    graphs = graphs_of(batch)
    sizes = torch.zeros(graphs, dtype=torch.int64, device=keep.device).index_add_(0, owners(batch), keep.long())
    out = {
        **batch,
        "x": batch["x"][keep],
        "coords": batch["coords"][keep],
        "edge_index": number[edges[:, keep[edges].all(0)]],
        "sizes": sizes,
    }
    return {**out, "root": number[batch["root"]]} if "root" in batch else out


def roots(batch: Batch) -> Tensor:
    """[N] bool: the nodes that a flat batch is about; none where it is about graphs."""
    chosen = torch.zeros(len(batch["x"]), dtype=torch.bool, device=batch["x"].device)
    if "root" in batch:
        chosen[batch["root"]] = True
    return chosen
