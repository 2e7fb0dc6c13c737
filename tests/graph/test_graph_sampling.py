"""Neighbour sampling: uniform, without replacement, of the draws alone, exact where nothing is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from unlabeled.contract import Batch, Kind
from unlabeled.randomness import Draws
from unlabeled_graph.batches import collate, edge_owners, owners
from unlabeled_graph.encoders import SAGE
from unlabeled_graph.readers import GraphReader, open_graphs
from unlabeled_graph.sampling import _without_replacement
from unlabeled_graph.views import Unchanged


def cut(reader: GraphReader, indices: list[int], kind: Kind = "global", seed: int = 0) -> Batch:
    view = Unchanged(reader.facts)
    return collate([view.sample(reader[index], kind, Draws(torch.tensor([index + seed]))) for index in indices])


def ids(reader: GraphReader, batch: Batch) -> Tensor:
    """The node of the whole graph that each node is, where features tell nodes apart."""
    return (batch["x"][:, None] == reader.x).all(2).float().argmax(1)


def distinct(save: Callable[..., str], one: GraphReader, fanout: list[int]) -> GraphReader:
    """The graph of `one` with features that tell nodes apart, sampled."""
    x = torch.eye(60).numpy()
    return open_graphs(save(x=x, edge_index=one.edges()), whole=0, fanout=fanout, scale="none")


def test_floyd_takes_every_set_equally_often() -> None:
    uniform = torch.rand(6000, 1, 2, generator=torch.Generator().manual_seed(0))
    picks = _without_replacement(uniform, torch.full((6000, 1), 4))[:, 0].sort(1).values
    count = Counter(map(tuple, picks.tolist()))
    assert set(count) == set(combinations(range(4), 2))
    assert all(abs(number - 1000) < 130 for number in count.values())  # four standard deviations
    few = _without_replacement(torch.rand(1, 3, 5), torch.tensor([[0, 2, 5]]))
    assert few.tolist() == [[[0, 1, 2, 3, 4]] * 3]


def test_an_ego_net_is_a_part_of_the_graph_around_its_node(save: Callable[..., str], one: GraphReader) -> None:
    reader = distinct(save, one, [3, 2])
    batch = cut(reader, list(range(20)))
    node, known = ids(reader, batch), {tuple(pair) for pair in one.edges().T.tolist()}
    assert node[batch["root"]].tolist() == list(range(20))
    assert {(int(node[a]), int(node[b])) for a, b in batch["edge_index"].T} <= known
    assert (owners(batch)[batch["edge_index"][0]] == edge_owners(batch)).all()
    for graph, part in enumerate(node.split(batch["sizes"].tolist())):
        assert len(part.unique()) == len(part)  # a node that is met twice is one node, or a mask would leak
        assert 1 <= len(part) <= 1 + 3 + 6
        near = part[batch["coords"][owners(batch) == graph, 0] == 0.5]
        assert len(near) == min(3, int((one.edges()[1] == graph).sum()))


def test_samples_follow_their_draws_alone(save: Callable[..., str], one: GraphReader) -> None:
    reader = distinct(save, one, [3, 2])
    batch, alone = cut(reader, [4, 8, 15]), cut(reader, [8])
    mine = owners(batch) == 1
    assert batch["x"][mine].equal(alone["x"])
    assert (batch["edge_index"][:, edge_owners(batch) == 1] - batch["sizes"][0]).equal(alone["edge_index"])
    parts = {tuple(ids(reader, cut(reader, [8], seed=seed)).tolist()) for seed in range(20)}
    assert len(parts) > 5


def test_whole_views_take_all_neighbours_up_to_a_bound(save: Callable[..., str], one: GraphReader) -> None:
    reader = distinct(save, one, [3, 2])
    node = ids(reader, cut(reader, [8], "whole"))
    edges = one.edges()
    near = set(edges[0][edges[1] == 8].tolist())
    far = {int(source) for hop in near for source in edges[0][edges[1] == hop]}
    assert set(node.tolist()) == {8} | near | far
    star = open_graphs(save(edge_index=[[0] * 200, list(range(1, 201))]), whole=0, fanout=[1])
    assert cut(star, [0], "whole")["sizes"].tolist() == [31]


def test_an_encoder_of_two_hops_sees_the_same_in_an_ego_net_as_in_the_graph(web: str, one: GraphReader) -> None:
    large = open_graphs(web, whole=0, fanout=[60, 60])
    encoder = SAGE(large.facts, width=8, depth=2).eval()
    sampled = encoder(encoder.tokenize(cut(large, list(range(60))))).instances
    batch = one.batch(list(range(60)))
    assert batch is not None
    batch = {**batch, "coords": batch["coords"][:, :1]}
    torch.testing.assert_close(sampled, encoder(encoder.tokenize(batch)).instances)


def test_a_node_without_edges_is_alone(save: Callable[..., str]) -> None:
    reader = open_graphs(save(x=torch.eye(3).numpy(), edge_index=[[0], [1]]), whole=0)
    batch = cut(reader, [2, 0])
    assert batch["sizes"].tolist() == [1, 2]
    assert batch["root"].tolist() == [0, 1]
