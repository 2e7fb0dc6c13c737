"""Encoders against dense naive computations, and what hiding, pooling and decoding mean on graphs."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.contract import Alteration, Batch, Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.testing import check_encoder
from unlabeled_graph.encoders import ENCODERS, GAT, GCN, GIN, SAGE
from unlabeled_graph.readers import GraphReader

SMALL: dict[str, dict[str, Any]] = {name: {"width": 16, "depth": 2} for name in ENCODERS}


def made(name: str, reader: GraphReader, **options: Any) -> Encoder:
    encoder: Encoder = ENCODERS[name](reader.facts, **{**SMALL[name], **options})
    return encoder.eval()


def batch_of(reader: GraphReader, indices: list[int]) -> Batch:
    batch = reader.batch(indices)
    assert batch is not None
    return batch


def dense(sample: Batch) -> Tensor:
    """A[i, j] = 1 where an edge goes from j to i."""
    nodes = len(sample["x"])
    adjacency = torch.zeros(nodes, nodes)
    adjacency[sample["edge_index"][1], sample["edge_index"][0]] = 1
    return adjacency


def test_gcn_is_the_normalised_adjacency_times_features_times_weights(one: GraphReader) -> None:
    encoder = GCN(one.facts, width=16).eval()
    sample = one[0]
    adjacency = dense(sample) + torch.eye(len(sample["x"]))
    root = adjacency.sum(1).rsqrt()
    spread = root[:, None] * adjacency * root
    x = sample["x"]
    for layer in encoder.layers:
        weight, bias = layer.conv.lin.weight, layer.conv.bias
        x = spread @ x @ weight.T + bias
        x = x.relu() if layer is encoder.layers[0] else x
    out = encoder(encoder.tokenize(batch_of(one, list(range(len(one))))))
    torch.testing.assert_close(out.instances, x)


def test_gat_is_attention_over_neighbours_and_itself(one: GraphReader) -> None:
    encoder = GAT(one.facts, width=8, depth=1, heads=2, last_activation=False).eval()
    sample, conv = one[0], encoder.layers[0].conv
    allowed = (dense(sample) + torch.eye(len(sample["x"]))) > 0
    heads = []
    for head in range(2):
        z = (sample["x"] @ conv.lin.weight.T).view(-1, 2, 4)[:, head]
        logits = (z @ conv.att_dst[0, head])[:, None] + (z @ conv.att_src[0, head])[None]
        logits = torch.nn.functional.leaky_relu(logits, 0.2).masked_fill(~allowed, -torch.inf)
        heads.append(logits.softmax(1) @ z)
    out = encoder(encoder.tokenize(batch_of(one, list(range(len(one))))))
    torch.testing.assert_close(out.instances, torch.cat(heads, 1) + conv.bias)


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_a_graph_is_its_pooled_nodes(many: GraphReader, pool: str) -> None:
    encoder = made("gcn", many, pool=pool)
    tokens = encoder.tokenize(batch_of(many, [3, 1, 8]))
    out = encoder(tokens)
    assert out.tokens is not None
    parts = out.tokens[0].split(tokens.context["sizes"].tolist())
    pooled = [part.amax(0) if pool == "max" else getattr(part, pool)(0) for part in parts]
    torch.testing.assert_close(out.instances, torch.stack(pooled))


def test_an_instance_of_one_graph_is_the_node_that_was_asked_for(one: GraphReader) -> None:
    encoder = made("gcn", one)
    whole = encoder(encoder.tokenize(batch_of(one, list(range(60)))))
    some = encoder(encoder.tokenize(batch_of(one, [40, 3, 40, 3])))  # two copies
    assert whole.tokens is not None
    torch.testing.assert_close(some.instances, whole.tokens[0, [40, 3, 40, 3]])
    assert some.tokens is not None
    torch.testing.assert_close(some.tokens[0], whole.tokens[0].repeat(2, 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_of_nodes_keep_their_promises(one: GraphReader, name: str) -> None:
    batch = batch_of(one, list(range(60)))
    check_encoder(made(name, one), batch, again=functools.partial(made, name, one))


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_encoders_of_ego_nets_keep_their_promises(large: GraphReader, name: str) -> None:
    from unlabeled_graph.batches import collate

    alone = [collate([large[index]]) for index in range(6)]
    check_encoder(made(name, large), collate([large[index] for index in range(6)]), alone=alone)


def test_a_hidden_node_shows_the_learned_blank(one: GraphReader) -> None:
    encoder = made("gcn", one)
    assert isinstance(encoder, GCN)
    torch.nn.init.normal_(encoder.blank)
    tokens = encoder.tokenize(batch_of(one, [0]))
    hidden = torch.rand(1, 60) < 0.3
    by_hand = tokens.values.clone()
    by_hand[hidden] = encoder.blank.detach()
    other = Tokens(by_hand, tokens.coords, tokens.valid, tokens.context, tokens.owner)
    torch.testing.assert_close(encoder(tokens, hidden).tokens, encoder(other).tokens)
    altered = encoder(tokens, alter=Alteration(blank=hidden, token=encoder.blank))
    torch.testing.assert_close(altered.tokens, encoder(other).tokens)


def test_the_decoder_blanks_what_is_wanted_again(one: GraphReader) -> None:
    encoder = made("gat", one)
    decoder = encoder.predictor(5, 16, 1)
    assert decoder is not None
    decoder.eval()
    tokens = encoder.tokenize(batch_of(one, [0]))
    wanted = torch.rand(1, 60) < 0.5
    latent = torch.randn(1, 60, encoder.width)
    out = decoder(latent, tokens, ~wanted, wanted)
    changed = torch.where(wanted[..., None], 100.0, latent)
    torch.testing.assert_close(decoder(changed, tokens, ~wanted, wanted), out)
    shown = torch.where(wanted[..., None], latent, 100.0)
    assert not decoder(shown, tokens, ~wanted, wanted)[wanted].allclose(out[wanted])


def test_nodes_of_one_graph_do_not_reach_another(many: GraphReader) -> None:
    for name in ENCODERS:
        encoder = made(name, many)
        tokens = encoder.tokenize(batch_of(many, [0, 5]))
        values = tokens.values.clone()
        values[0, 0] += 1
        other = Tokens(values, tokens.coords, tokens.valid, tokens.context, tokens.owner)
        before, after = encoder(tokens).instances, encoder(other).instances
        assert not before[0].equal(after[0])
        torch.testing.assert_close(before[1], after[1])


def test_sage_and_gin_are_sums_and_means_of_neighbours(one: GraphReader) -> None:
    sample = one[0]
    adjacency, x = dense(sample), sample["x"]
    sage = SAGE(one.facts, width=4, depth=1, norm="none").eval()
    conv = sage.layers[0].conv
    mean = adjacency @ x / adjacency.sum(1, keepdim=True).clamp(min=1)
    tokens = sage.tokenize(batch_of(one, list(range(60))))
    torch.testing.assert_close(sage(tokens).instances, conv.lin_l(mean) + conv.lin_r(x))
    gin = GIN(one.facts, width=4, depth=1, norm="none", last_activation=False).eval()
    torch.testing.assert_close(gin(tokens).instances, gin.layers[0].conv.nn(x + adjacency @ x))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gcn", {"width": 0}, "at least 1"),
        ("gcn", {"activation": "swish"}, "activation cannot be 'swish'; there are: relu"),
        ("gcn", {"pool": "median"}, "pool cannot be 'median'"),
        ("gat", {"width": 10, "heads": 4}, "not a multiple of 4 heads"),
        ("gps", {"width": 10, "heads": 4}, "not a multiple of 4 heads"),
        ("sage", {"dropout": 1.0}, "dropout is a share"),
    ],
)
def test_options_that_mean_nothing(one: GraphReader, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(name, one, **options)


def test_every_encoder_is_offered() -> None:
    assert list(plugins.load("graph").encoders) == ["gcn", "gat", "gin", "sage", "gps"]
