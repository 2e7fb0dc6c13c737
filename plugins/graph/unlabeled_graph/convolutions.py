"""PyG's convolutions, imported without what torch has to say about it, and the edges that they take."""

import warnings

import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.layers import is_exporting

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyG 2.8 scripts functions at import, which torch 2.14 warns of
    from torch_geometric.nn import GATConv, GCNConv, GINConv, GPSConv, SAGEConv

    torch.sparse_csr_tensor([0, 1], [0], [1.0])  # torch says once a process that these are in beta and unchecked

__all__ = ["GATConv", "GCNConv", "GINConv", "GPSConv", "SAGEConv", "listed", "multiplied"]


def listed(tokens: Tokens) -> Tensor:
    """[2, E] edges as they are."""
    return tokens.context["edge_index"]


def multiplied(tokens: Tokens) -> Tensor:
    """The sparse transposed adjacency [N, N] where a CPU multiplies by it, else edges as they are.

    For convolutions that sum: no message is written out, which is three times as fast. Autocast and exported graphs
    have no such product.
    """
    edges = listed(tokens)
    if edges.device.type != "cpu" or torch.is_autocast_enabled("cpu") or is_exporting():
        return edges
    nodes = tokens.valid.shape[1]
    ones = torch.ones(edges.shape[1], dtype=tokens.values.dtype)
    return torch.sparse_coo_tensor(edges.flip(0), ones, (nodes, nodes), check_invariants=False).to_sparse_csr()
