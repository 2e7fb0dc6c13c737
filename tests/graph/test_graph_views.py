"""What views and masks of graphs do, at every level, and that their chance is that of each graph or copy."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from unlabeled.contract import Batch, Kind, View
from unlabeled.errors import UserError
from unlabeled.randomness import Draws
from unlabeled.testing import check_view
from unlabeled_graph.batches import collate, edge_owners, flat, owners
from unlabeled_graph.encoders import GCN
from unlabeled_graph.masks import NeighbourhoodMask, hops
from unlabeled_graph.readers import GraphReader
from unlabeled_graph.views import VIEWS, Diffusion, Drop, NodeDrop, RandomWalk


def seen(view: View, reader: GraphReader, indices: list[int], kind: Kind = "global", seed: int = 0) -> Batch:
    batch = reader.batch(indices)
    assert batch is not None
    return view.batch(batch, kind, Draws(torch.arange(len(indices)) * 7919 + seed))


def pairs(edge_index: Tensor) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in edge_index.T}


@pytest.mark.parametrize("name", ["drop", "diffusion", "none"])
def test_views_of_one_graph_keep_their_promises(one: GraphReader, name: str) -> None:
    check_view(VIEWS[name](one.facts), [one[index] for index in range(10)], collate=collate)


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_a_sampled_graph_keep_their_promises(large: GraphReader, name: str) -> None:
    check_view(VIEWS[name](large.facts), [large[index] for index in range(10)], collate=collate)


def test_drop_removes_its_share_of_edges_and_blanks_whole_columns(one: GraphReader) -> None:
    edges, columns = [], []
    for seed in range(60):
        out = seen(Drop(one.facts, edges=0.4, features=0.25), one, list(range(60)), seed=seed)
        edges.append(out["edge_index"].shape[1] / one.edges().shape[1])
        gone = (out["x"] == 0).all(0) & (one.x != 0).any(0)
        columns.append(float(gone.float().mean()))
        assert out["x"].equal(torch.where(gone, 0, one.x))
        assert pairs(out["edge_index"]) <= pairs(torch.from_numpy(one.edges()))
    assert sum(edges) / 60 == pytest.approx(0.6, abs=0.02)
    assert sum(columns) / 60 == pytest.approx(0.25, abs=0.04)


def test_two_views_of_one_graph_are_two_copies_that_differ(one: GraphReader) -> None:
    out = seen(Drop(one.facts, edges=0.5, features=0.3), one, [*range(60), *range(60)])
    assert out["sizes"].tolist() == [60, 60]
    assert out["root"].tolist() == list(range(120))
    first, second = (pairs(out["edge_index"][:, edge_owners(out) == copy] - 60 * copy) for copy in (0, 1))
    assert first != second
    assert not out["x"][:60].equal(out["x"][60:])


def test_a_graph_is_seen_the_same_in_another_batch(many: GraphReader) -> None:
    for view in (Drop(many.facts), NodeDrop(many.facts), RandomWalk(many.facts), Diffusion(many.facts)):
        batch, alone = many.batch([4, 9, 2]), many.batch([9])
        assert batch is not None
        assert alone is not None
        both = view.batch(batch, "global", Draws(torch.tensor([11, 22, 33])))
        one = view.batch(alone, "global", Draws(torch.tensor([22])))
        mine = owners(both) == 1
        assert both["x"][mine].equal(one["x"])
        edges = both["edge_index"][:, edge_owners(both) == 1] - int(both["sizes"][0])
        assert pairs(edges) == pairs(one["edge_index"])


def test_drop_between_bounds_has_a_share_for_each_view(many: GraphReader) -> None:
    view = Drop(many.facts, edges=(0.2, 0.6), features=0.0)
    kept = []
    for seed in range(40):
        out = seen(view, many, [4], seed=seed)
        kept.append(out["edge_index"].shape[1] / many[4]["edge_index"].shape[1])
    assert 0.5 < sum(kept) / len(kept) < 0.7
    assert max(kept) - min(kept) > 0.25
    assert seen(Drop(many.facts, edges=(0.3, 0.3)), many, [4])["edge_index"].equal(
        seen(Drop(many.facts, edges=0.3), many, [4])["edge_index"]
    )
    with pytest.raises(UserError, match="smaller to the larger"):
        Drop(many.facts, edges=(0.6, 0.2))


def test_node_drop_keeps_an_exact_share_and_only_edges_between_kept_nodes(many: GraphReader) -> None:
    whole = many.batch([4, 9, 2])
    assert whole is not None
    out = seen(NodeDrop(many.facts, share=0.3), many, [4, 9, 2])
    sizes = whole["sizes"]
    assert out["sizes"].equal(sizes - (0.3 * sizes).round().long())
    assert out["edge_index"].max() < len(out["x"])
    assert (owners(out)[out["edge_index"][0]] == edge_owners(out)).all()


def test_node_drop_never_drops_the_node_of_an_ego_net(large: GraphReader) -> None:
    view = NodeDrop(large.facts, share=0.8)
    samples = [view.sample(large[index], "global", Draws(torch.tensor([index]))) for index in range(20)]
    out = view.batch(collate(samples), "global", Draws(torch.arange(20)))
    assert out["x"][out["root"]].equal(large.x[:20])


def test_random_walks_keep_a_connected_part(many: GraphReader) -> None:
    for seed in range(20):
        out = seen(RandomWalk(many.facts, share=0.5), many, [4, 9, 2, 7], seed=seed)
        first = torch.zeros(len(out["x"]), dtype=torch.bool)
        first[out["sizes"].cumsum(0) - out["sizes"]] = True  # the first node of each
        assert (hops(out["edge_index"], first) < 64).all()
        assert (out["sizes"] >= 1).all()


@pytest.mark.parametrize(("kernel", "options"), [("ppr", {"alpha": 0.3}), ("heat", {"time": 2.0})])
def test_diffusion_draws_from_the_diffusion_matrix(many: GraphReader, kernel: Any, options: dict[str, float]) -> None:
    view = Diffusion(many.facts, kernel=kernel, neighbours=4000, features=0.0, **options)
    sample = many[0]
    nodes = len(sample["x"])
    walk = torch.zeros(nodes, nodes, dtype=torch.float64)
    walk[sample["edge_index"][1], sample["edge_index"][0]] = 1
    walk = walk / walk.sum(1, keepdim=True)
    if kernel == "ppr":
        exact = 0.3 * torch.linalg.inv(torch.eye(nodes, dtype=torch.float64) - 0.7 * walk)
    else:
        exact = torch.linalg.matrix_exp(2.0 * (walk - torch.eye(nodes, dtype=torch.float64)))
    out = seen(view, many, [0])
    found = torch.zeros(nodes, nodes, dtype=torch.float64)
    found.index_put_((out["edge_index"][1], out["edge_index"][0]), torch.tensor(1 / 4000).double(), accumulate=True)
    off = ~torch.eye(nodes, dtype=torch.bool)
    torch.testing.assert_close(found[off], exact[off], atol=0.03, rtol=0)


def test_plain_and_whole_views_are_the_data(many: GraphReader, one: GraphReader) -> None:
    for reader in (many, one):
        batch = reader.batch([1, 2])
        assert batch is not None
        for name in ("drop", "diffusion"):
            for kind in ("plain", "whole"):
                assert VIEWS[name](reader.facts).batch(batch, kind, Draws(torch.arange(2))) is batch


@pytest.mark.parametrize(("name", "options"), [("drop", {}), ("node_drop", {}), ("random_walk", {}), ("diffusion", {})])
def test_chemistry_refuses_what_breaks_molecules(many: GraphReader, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="breaks molecules"):
        VIEWS[name](many.facts, chemistry=True, **options)
    assert seen(Drop(many.facts, edges=0.0, chemistry=True), many, [1])["edge_index"].equal(many[1]["edge_index"])


@pytest.mark.parametrize("name", ["node_drop", "random_walk"])
def test_views_that_leave_nodes_out_are_refused_where_each_is_a_sample(one: GraphReader, name: str) -> None:
    with pytest.raises(UserError, match="each node of the graph is a sample"):
        VIEWS[name](one.facts)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("drop", {"edges": 1.0}, "edges is a share"),
        ("node_drop", {"share": -0.1}, "share is a share"),
        ("diffusion", {"kernel": "wave"}, "kernel cannot be 'wave'"),
        ("diffusion", {"alpha": 0.0}, "alpha between 0 and 1"),
    ],
)
def test_options_that_mean_nothing(many: GraphReader, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        VIEWS[name](many.facts, **options)


def test_views_have_a_sample_stage_only_where_neighbours_are_sampled(one: GraphReader, large: GraphReader) -> None:
    assert type(Drop(one.facts)).sample is View.sample
    assert type(Drop(large.facts)).sample is not View.sample
    copy = pickle.loads(pickle.dumps(Drop(large.facts, edges=0.25)))
    assert type(copy).sample is type(Drop(large.facts)).sample
    assert copy._edges == (0.25, 0.25)


def test_the_neighbourhood_mask_hides_the_nodes_nearest_to_one(many: GraphReader, one: GraphReader) -> None:
    encoder = GCN(many.facts, width=8)
    batch = many.batch([4, 9, 2])
    assert batch is not None
    tokens = encoder.tokenize(batch)
    hidden = NeighbourhoodMask(0.5)(tokens, Draws(torch.tensor([1, 2, 3]))).hidden
    assert tokens.owner is not None
    for graph, size in enumerate(batch["sizes"].tolist()):
        mine = hidden[0] & (tokens.owner[0] == graph)
        assert int(mine.sum()) == round(0.5 * size)
        assert any(nearest(batch["edge_index"], mine, start) for start in mine.nonzero()[:, 0])


def nearest(edge_index: Tensor, chosen: Tensor, start: Tensor) -> bool:
    """Whether the chosen nodes are a ball around `start`, up to ties."""
    first = torch.zeros_like(chosen)
    first[start] = True
    far = hops(edge_index, first)
    same = far[~chosen & (far < 64)]
    return bool(far[chosen].max() <= (same.min() if len(same) else 64))


def test_hops_are_shortest_ways(one: GraphReader) -> None:
    first = torch.zeros(60, dtype=torch.bool)
    first[5] = True
    edges = torch.from_numpy(one.edges())
    step = torch.zeros(60, 60)
    step[edges[1], edges[0]] = 1
    reach, at, expected = first.float(), 0, torch.full((60,), 64.0)
    while at < 60:
        expected = torch.where((reach > 0) & (expected == 64), float(at), expected)
        reach, at = reach + step @ reach, at + 1
    assert hops(edges, first).equal(expected)


def test_flat_changes_nothing_of_what_is_flat(many: GraphReader) -> None:
    batch = many.batch([1, 2])
    assert batch is not None
    assert flat(batch) is batch


# ---- known transforms


@pytest.mark.parametrize("source", ["many", "large"])
def test_features_move_on_by_quarters_on_all_nodes_of_a_graph(source: str, request: pytest.FixtureRequest) -> None:
    reader: GraphReader = request.getfixturevalue(source)
    view = VIEWS["none"](reader.facts)
    batch = view.batch(collate([reader[index] for index in range(8)]), "whole", Draws(torch.arange(8)))
    batch = {**batch, "x": torch.randn(len(batch["x"]), reader.facts["features"]["width"])}
    which = torch.arange(8) % view.transforms
    made = view.transform(batch, which)
    width = batch["x"].shape[1]
    for node, graph in enumerate(owners(batch).tolist()):
        steps = int(which[graph]) * width // view.transforms
        assert torch.equal(made["x"][node], batch["x"][node].roll(steps))
    assert all(made[name] is batch[name] for name in batch if name != "x")


def test_one_graph_as_a_whole_and_one_feature_have_no_known_transforms(one: GraphReader) -> None:
    assert VIEWS["drop"](one.facts).transforms == 0
    facts = {**one.facts, "storage": "graphs"}
    assert VIEWS["drop"](facts).transforms == 4
    assert VIEWS["drop"]({**facts, "features": {**facts["features"], "width": 1}}).transforms == 0
    assert VIEWS["drop"]({**facts, "features": {**facts["features"], "width": 3}}).transforms == 3
