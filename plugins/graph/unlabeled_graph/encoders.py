"""Backbones from torch_geometric.nn. A token is a node; an instance is a graph, or the node that a batch is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoded, Encoder, Facts, LibraryModel, Predictor, Tokens
from unlabeled.errors import UserError
from unlabeled_graph.batches import flat, owners
from unlabeled_graph.convolutions import GATConv, GCNConv, GINConv, GPSConv, SAGEConv, listed, multiplied

Activation = Literal["relu", "prelu", "elu", "gelu"]
Norm = Literal["none", "batch", "layer"]
Pool = Literal["mean", "sum", "max"]
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "prelu": nn.PReLU, "elu": nn.ELU, "gelu": nn.GELU}
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}
Conv = Callable[[int, int, bool], nn.Module]  # input width, output width, whether it is the last of a decoder
Edges = Callable[[Tokens], Tensor]  # in the form that the convolutions take


class Layer(nn.Module):
    """Dropout, convolution, norm, activation."""

    def __init__(self, conv: nn.Module, norm: nn.Module, activation: nn.Module, dropout: float):
        super().__init__()
        self.conv, self.norm, self.activation, self.dropout = conv, norm, activation, dropout

    def forward(self, x: Tensor, edges: Tensor, tokens: Tokens) -> Tensor:
        x = self.conv(F.dropout(x, self.dropout, self.training), edges)
        out: Tensor = self.activation(self.norm(x))
        return out


class GraphDecoder(Predictor):
    """GraphMAE's decoder (arXiv 2205.10803): linear without bias, wanted nodes blanked again, convolutions."""

    def __init__(self, in_width: int, out_width: int, width: int, depth: int, conv: Conv, edges: Edges, dropout: float):
        super().__init__()
        self.edges = edges
        self.enter = nn.Linear(in_width, width, bias=False)
        self.layers = nn.ModuleList(
            Layer(conv(width, width, False), nn.Identity(), nn.PReLU(), dropout) for _ in range(depth - 1)
        )
        self.leave = Layer(conv(width, out_width, True), nn.Identity(), nn.Identity(), dropout)

    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        x = torch.where((seen & ~wanted)[..., None], self.enter(latent), 0)[0]
        edges = self.edges(tokens)
        for layer in self.layers:
            x = layer(x, edges, tokens)
        out: Tensor = self.leave(x, edges, tokens)[None]
        return out


class GraphEncoder(Encoder):
    """What all graph nets share: hidden nodes get a learned blank in place of features before the first layer.

    Subclasses say what a convolution is. The mixing point is the features themselves, as in GraphMAE.
    """

    edges: Edges = staticmethod(listed)

    def __init__(
        self,
        facts: Facts,
        width: int,
        depth: int,
        activation: str,
        norm: str,
        last_activation: bool,
        dropout: float,
        pool: str,
        positions: bool,
    ):
        super().__init__()
        _check(width, depth, activation, norm, pool, dropout)
        self.value_width = self.embed_width = facts["features"]["width"]
        self.coord_width, self.width, self.depth = facts["coords"], width, depth
        self.dropout, self.pool, self.positions = dropout, pool, positions
        self.blank = nn.Parameter(torch.zeros(self.value_width))
        widths = [self.value_width + (self.coord_width if positions else 0), *[width] * depth]
        acts = [ACTIVATIONS[activation]() for _ in range(depth - 1)]
        acts.append(ACTIVATIONS[activation]() if last_activation else nn.Identity())
        self.layers = nn.ModuleList(
            Layer(self.conv(widths[at], width, False), NORMS[norm](width), acts[at], dropout) for at in range(depth)
        )

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        """One convolution; `last` in a decoder, whose output has any width."""
        raise NotImplementedError

    def of_pyg(self, name: str, act: str, norm: str, last_activation: bool, **options: Any) -> LibraryModel | None:
        """For `--to backbone`: PyG's basic models, which have no norm and no activation at the end, and one PReLU."""
        if norm != "none" or last_activation or (act == "prelu" and self.depth != 2):
            return None
        found = {"conv.": "convs.{}.", "activation.": "act."}
        state = {}
        for at, layer in enumerate(self.layers):
            for key, value in layer.state_dict().items():
                part = key.partition(".")[0] + "."
                state[found[part].format(at) + key.removeprefix(part)] = value
        inputs = self.value_width + (self.coord_width if self.positions else 0)
        arguments = {"in_channels": inputs, "hidden_channels": self.width, "num_layers": self.depth, "act": act}
        says = f"node features{', return probabilities' if self.positions else ''} [N, V], and edges [2, E]"
        return LibraryModel("torch-geometric", f"torch_geometric.nn.{name}", {**arguments, **options}, state, says)

    def tokenize(self, batch: Batch) -> Tokens:
        batch = flat(batch)
        owner = owners(batch)
        context = {name: batch[name] for name in ("edge_index", "sizes", "root") if name in batch}
        valid = torch.ones(1, owner.shape[0], dtype=torch.bool, device=owner.device)
        return Tokens(batch["x"][None], batch["coords"][None], valid, context, owner[None])

    def embed(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        x = self.embed(tokens)
        x = (x if alter is None else alter(x))[0]
        if hidden is not None:
            x = torch.where(hidden[0][:, None], self.blank.to(x.dtype), x)
        if self.positions:
            x = torch.cat([x, tokens.coords[0]], 1)
        kept: list[Tensor] = []
        edges = self.edges(tokens)
        for number, layer in enumerate(self.layers):
            x = layer(x, edges, tokens)
            if number >= self.depth - layers:
                kept.append(x)
        return Encoded(x[None], self._instances(x, tokens), torch.stack(kept)[:, None] if layers else None)

    def _instances(self, x: Tensor, tokens: Tokens) -> Tensor:
        """Nodes that the batch is about, or each graph's pooled nodes."""
        if "root" in tokens.context:
            return x[tokens.context["root"]]
        assert tokens.owner is not None
        sizes, owner = tokens.context["sizes"], tokens.owner[0]
        if self.pool == "max":
            lowest = x.new_full((sizes.shape[0], x.shape[1]), -torch.inf)
            return lowest.scatter_reduce(0, owner[:, None].expand_as(x), x, "amax")
        total = x.new_zeros(sizes.shape[0], x.shape[1]).index_add(0, owner, x)
        return total / sizes[:, None] if self.pool == "mean" else total

    def predictor(self, out_width: int, width: int, depth: int) -> Predictor:
        return GraphDecoder(self.width, out_width, width, depth, self.conv, self.edges, self.dropout)


def _module(convolution: Any) -> nn.Module:
    """PyG's layers have no types."""
    assert isinstance(convolution, nn.Module)
    return convolution


def _check(width: int, depth: int, activation: str, norm: str, pool: str, dropout: float) -> None:
    if min(width, depth) < 1:
        raise UserError(f"width and depth must be at least 1, not {width} and {depth}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is a share: from 0 to below 1, not {dropout}")
    for what, name, table in (
        ("activation", activation, tuple(ACTIVATIONS)),
        ("norm", norm, tuple(NORMS)),
        ("pool", pool, ("mean", "sum", "max")),
    ):
        if name not in table:
            raise UserError(f"{what} cannot be {name!r}; there are: {', '.join(table)}")


class GCN(GraphEncoder):
    """Graph convolutional network (arXiv 1609.02907), as CCA-SSG uses it: no activation after the last layer.

    Args:
        facts: of the reader.
        width: D, of a node and of a graph.
        depth: layers.
        activation: relu, prelu, elu or gelu.
        norm: none, batch or layer.
        last_activation: also after the last layer, as GRACE and BGRL have it.
        dropout: of each layer's input.
        pool: a graph is the mean, sum or max of its nodes.
        positions: give places (return probabilities) to the first layer too.
    """

    edges = staticmethod(multiplied)

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 512,
        depth: int = 2,
        activation: Activation = "relu",
        norm: Norm = "none",
        last_activation: bool = False,
        dropout: float = 0.0,
        pool: Pool = "mean",
        positions: bool = False,
    ):
        super().__init__(facts, width, depth, activation, norm, last_activation, dropout, pool, positions)
        self._made = (activation, norm, last_activation)

    def library_model(self) -> LibraryModel | None:
        return self.of_pyg("GCN", *self._made)

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        return _module(GCNConv(inputs, outputs))


class GAT(GraphEncoder):
    """Graph attention network (arXiv 1710.10903), as GraphMAE uses it on citation networks.

    Weights start as GraphMAE's, which are half as large again as PyG's own and more even between attention and maps.

    Args:
        facts: of the reader.
        width: D, of all heads together.
        depth: layers.
        heads: of attention.
        activation: relu, prelu, elu or gelu.
        norm: none, batch or layer.
        last_activation: also after the last layer.
        dropout: of each layer's input.
        attention_dropout: of attention weights.
        pool: a graph is the mean, sum or max of its nodes.
        positions: give places (return probabilities) to the first layer too.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 512,
        depth: int = 2,
        heads: int = 4,
        activation: Activation = "prelu",
        norm: Norm = "none",
        last_activation: bool = True,
        dropout: float = 0.2,
        attention_dropout: float = 0.1,
        pool: Pool = "mean",
        positions: bool = False,
    ):
        if heads < 1 or width % heads:
            raise UserError(f"width {width} is not a multiple of {heads} heads; choose --encoder.heads that divide it")
        self._heads, self._attention_dropout = heads, attention_dropout
        super().__init__(facts, width, depth, activation, norm, last_activation, dropout, pool, positions)
        self._made = (activation, norm, last_activation)

    def library_model(self) -> LibraryModel | None:
        return self.of_pyg("GAT", *self._made, heads=self._heads)

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        heads = 1 if last or outputs % self._heads else self._heads
        made = _module(GATConv(inputs, outputs // heads, heads, dropout=self._attention_dropout))
        for weight in made.parameters():
            if weight.ndim > 1:
                nn.init.xavier_normal_(weight, nn.init.calculate_gain("relu"))
        return made


class GIN(GraphEncoder):
    """Graph isomorphism network (arXiv 1810.00826): sums of neighbours through an MLP with batch norm.

    Args:
        facts: of the reader.
        width: D, of a node and of a graph.
        depth: layers.
        activation: relu, prelu, elu or gelu.
        norm: none, batch or layer.
        last_activation: also after the last layer.
        dropout: of each layer's input.
        pool: a graph is the mean, sum or max of its nodes.
        positions: give places (return probabilities) to the first layer too.
    """

    edges = staticmethod(multiplied)

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 512,
        depth: int = 2,
        activation: Activation = "prelu",
        norm: Norm = "batch",
        last_activation: bool = True,
        dropout: float = 0.0,
        pool: Pool = "sum",
        positions: bool = False,
    ):
        super().__init__(facts, width, depth, activation, norm, last_activation, dropout, pool, positions)

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        inner = self.width
        mlp = [nn.Linear(inputs, inner), nn.BatchNorm1d(inner), nn.ReLU(), nn.Linear(inner, outputs)]
        return _module(GINConv(nn.Sequential(*mlp)))


class SAGE(GraphEncoder):
    """GraphSAGE (arXiv 1706.02216): a node beside the mean of its neighbours; the usual choice where they are sampled.

    Args:
        facts: of the reader.
        width: D, of a node and of a graph.
        depth: layers.
        activation: relu, prelu, elu or gelu.
        norm: none, batch or layer.
        last_activation: also after the last layer.
        dropout: of each layer's input.
        pool: a graph is the mean, sum or max of its nodes.
        positions: give places (return probabilities) to the first layer too.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "relu",
        norm: Norm = "layer",
        last_activation: bool = False,
        dropout: float = 0.0,
        pool: Pool = "mean",
        positions: bool = False,
    ):
        super().__init__(facts, width, depth, activation, norm, last_activation, dropout, pool, positions)
        self._made = (activation, norm, last_activation)

    def library_model(self) -> LibraryModel | None:
        return self.of_pyg("GraphSAGE", *self._made)

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        return _module(SAGEConv(inputs, outputs))


class _Attended(nn.Module):
    """A linear map into the width where needed, then PyG's GPS layer."""

    def __init__(self, inputs: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.layer = GPSConv(width, GINConv(mlp), heads, dropout, norm="layer_norm", norm_kwargs={"mode": "node"})

    def forward(self, x: Tensor, edges: Tensor, tokens: Tokens) -> Tensor:
        assert tokens.owner is not None
        out: Tensor = self.layer(self.enter(x), edges, tokens.owner[0])
        return out


class GPS(GraphEncoder):
    """GPS (arXiv 2205.12454): in each layer messages along edges (GIN) and attention among all nodes of a graph.

    Attention pads graphs to the largest of the batch, which is PyG's; the messages and all else stay flat.

    Args:
        facts: of the reader.
        width: D, of a node and of a graph.
        depth: layers.
        heads: of attention.
        dropout: in the layers.
        pool: a graph is the mean, sum or max of its nodes.
        positions: give places (return probabilities) to the first layer too.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        dropout: float = 0.0,
        pool: Pool = "mean",
        positions: bool = True,
    ):
        if heads < 1 or width % heads:
            raise UserError(f"width {width} is not a multiple of {heads} heads; choose --encoder.heads that divide it")
        super().__init__(facts, width, depth, "relu", "none", False, dropout, pool, positions)
        first = self.value_width + (self.coord_width if positions else 0)
        self.layers = nn.ModuleList(_Attended(width if at else first, width, heads, dropout) for at in range(depth))

    def conv(self, inputs: int, outputs: int, last: bool) -> nn.Module:
        mlp = [nn.Linear(inputs, self.width), nn.ReLU(), nn.Linear(self.width, outputs)]
        return _module(GINConv(nn.Sequential(*mlp)))


ENCODERS: Mapping[str, Callable[..., Encoder]] = {"gcn": GCN, "gat": GAT, "gin": GIN, "sage": SAGE, "gps": GPS}
