"""Every source gives the same graph, tidied, with features, places, labels and splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.errors import BrokenItem, UserError
from unlabeled.testing import check_reader
from unlabeled_graph.batches import collate
from unlabeled_graph.readers import Collection, GraphReader, SampledGraph, WholeGraph, open_graphs

TRIANGLE = [[0, 1, 2], [1, 2, 0]]


def test_tu_graphs_come_as_they_were_written(many: GraphReader) -> None:
    assert isinstance(many, Collection)
    assert len(many) == 12
    first = many[0]  # a ring of 4 and a chain
    assert first["x"].sum(1).eq(1).all()
    degree = torch.bincount(first["edge_index"][1])
    assert degree.tolist()[:4] == [2, 2, 2, 3]
    assert degree[-1] == 1
    assert many.labels("label").tolist() == [0, 1] * 6
    lonely = many[1]["edge_index"]
    assert len(many[1]["x"]) - 1 not in lonely


def test_a_graph_whose_edges_go_one_way_is_made_to_go_both(save: Callable[..., str]) -> None:
    source = save(x=np.eye(3), edge_index=TRIANGLE)
    assert open_graphs(source).edges().tolist() == [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    assert open_graphs(source, directed=True).edges().tolist() == [[2, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize(("flags", "edges"), [({}, 2), ({"self_loops": True}, 3), ({"duplicates": True}, 4)])
def test_self_loops_and_repeats_are_kept_or_removed_and_said(
    save: Callable[..., str], flags: dict[str, bool], edges: int
) -> None:
    reader = open_graphs(save(x=np.eye(2), edge_index=[[0, 0, 1], [1, 1, 1]]), **flags)
    assert reader.edges().shape[1] == edges
    loops, repeats = (f"1 {'kept' if flags.get(name) else 'removed'}" for name in ("self_loops", "duplicates"))
    assert reader.notices == [f"self loops: {loops}", f"repeated edges: {repeats}"]
    assert {"what": "self loops", "value": loops} in reader.summary()


def test_an_edge_that_is_there_both_ways_is_not_doubled_when_repeats_are_kept(save: Callable[..., str]) -> None:
    reader = open_graphs(save(x=np.eye(2), edge_index=[[0, 1], [1, 0]]), duplicates=True)
    assert reader.edges().shape[1] == 2


def test_batch_is_what_its_samples_give_at_every_level(many: GraphReader, one: GraphReader) -> None:
    for reader in (many, one):
        for indices in ([0, 3, 2], [5, 1, 5, 1], [4]):
            batch = reader.batch(indices)
            assert batch is not None
            other = collate([reader[index] for index in indices])
            assert all(batch[name].equal(other[name]) for name in other)


def test_one_graph_comes_whole_and_without_a_copy(one: GraphReader) -> None:
    assert isinstance(one, WholeGraph)
    assert one.together
    batch = one.batch([7, 2, 9, 7, 2, 9])
    assert batch is not None
    assert batch["root"].tolist() == [[7, 2, 9], [7, 2, 9]]
    assert batch["x"].data_ptr() == one.x.data_ptr()


@pytest.mark.parametrize("flags", [{}, {"whole": 0}, {"directed": True}])
def test_readers_of_nodes_keep_their_promises(web: str, flags: dict[str, int]) -> None:
    check_reader(lambda facts=None: open_graphs(web, facts=facts, **flags), collate=collate)


def test_large_graphs_are_sampled_and_small_ones_whole(web: str) -> None:
    assert isinstance(open_graphs(web, whole=59), SampledGraph)
    assert isinstance(open_graphs(web, whole=60), WholeGraph)


def test_sampling_keeps_every_edge(one: GraphReader, large: GraphReader) -> None:
    assert large.edges().tolist() == one.edges().tolist()


def test_return_probabilities_are_those_of_a_dense_walk(many: GraphReader, one: GraphReader) -> None:
    for sample in (many[3], many[1], one[0]):
        nodes = len(sample["x"])
        walk = torch.zeros(nodes, nodes, dtype=torch.float64)
        walk[sample["edge_index"][0], sample["edge_index"][1]] = 1
        walk = walk / walk.sum(1, keepdim=True).clamp(min=1)
        powers = [torch.linalg.matrix_power(walk, steps).diagonal() for steps in (2, 3, 4)]
        torch.testing.assert_close(sample["coords"].double(), torch.stack(powers, 1), atol=1e-6, rtol=0)


def test_bags_of_words_are_scaled_by_rows_and_measurements_by_columns(save: Callable[..., str]) -> None:
    words = open_graphs(save(x=[[2, 0, 0], [0, 0, 0], [1, 0, 1.0]], edge_index=TRIANGLE))
    assert words.x.tolist() == [[1, 0, 0], [0, 0, 0], [0.5, 0, 0.5]]
    x = np.array([[1.0, -3], [2, 0], [3, 3]])
    measured = open_graphs(save(x=x, edge_index=TRIANGLE))
    np.testing.assert_allclose(measured.x, (x - x.mean(0)) / x.std(0), rtol=1e-6)
    assert open_graphs(save(x=x, edge_index=TRIANGLE), scale="none").x.tolist() == x.tolist()


def test_other_data_are_scaled_by_known_facts(save: Callable[..., str]) -> None:
    facts = open_graphs(save(x=[[0.0], [2.0], [-2.0]], edge_index=TRIANGLE)).facts
    facts = json.loads(json.dumps(facts))
    other = open_graphs(save(x=[[4.0], [4.0]], edge_index=[[0], [1]]), facts=facts)
    np.testing.assert_allclose(other.x, 4 / np.std([0, 2, -2]), rtol=1e-6)


def test_nodes_without_features_get_their_degree_and_it_is_said(save: Callable[..., str]) -> None:
    reader = open_graphs(save(edge_index=[[0, 0, 3], [1, 2, 3]]))
    assert reader.x.tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert any("degree" in note for note in reader.notices)
    star = open_graphs(save(edge_index=[[0] * 5, [1, 2, 3, 4, 5]]), facts=reader.facts)
    assert star.x[0].tolist() == [0, 0, 1]  # larger than any that was known


def test_categories_that_were_not_known_are_none(rings: str, many: GraphReader, tmp_path: Path) -> None:
    for file in Path(rings).iterdir():
        text = file.read_text()
        (tmp_path / file.name).write_text(text if "node_labels" not in file.name else text.replace("1", "9"))
    reader = open_graphs(str(tmp_path), facts=many.facts)
    assert reader.x.shape == many.x.shape
    assert reader.x[:, 1].sum() == 0


def test_an_edge_list_with_text_ids(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("source,target\nann,bob\nbob,cid\nbob,ann\n")
    (tmp_path / "nodes.csv").write_text("id,age,town,label,split\ncid,3,X,0,test\nann,1,Y,1,train\nbob,2,,1,val\n")
    reader = open_graphs(str(tmp_path), scale="none")
    assert [reader.name(index) for index in range(3)] == ["cid", "ann", "bob"]
    assert reader.x.tolist() == [[3], [1], [2]]
    assert reader.edges().tolist() == [[2, 2, 0, 1], [0, 1, 2, 2]]
    assert reader.labels("label").tolist() == [0, 1, 1]
    assert reader.labels("town").tolist() == ["X", "Y", ""]
    assert {part: rows.tolist() for part, rows in reader.split().items()} == {"train": [1], "val": [2], "test": [0]}
    assert reader.sees("age")
    assert not reader.sees("label")


def test_parquet_and_excluded_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"src": [10, 20], "dst": [20, 30]}), tmp_path / "e.parquet")
    parquet.write_table(pa.table({"id": [30, 20, 10], "a": [1.0, 2, 3], "b": [1, 0, 1]}), tmp_path / "n.parquet")
    reader = open_graphs(str(tmp_path / "e.parquet"), nodes=str(tmp_path / "n.parquet"), exclude=["b"], scale="none")
    assert reader.x.tolist() == [[1], [2], [3]]
    assert reader.labels("b").tolist() == [1, 0, 1]


def test_an_edge_list_alone_names_its_nodes(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("source,target\nb,a\nc,b\n")
    reader = open_graphs(str(tmp_path / "edges.csv"))
    assert [reader.name(index) for index in range(len(reader))] == ["a", "b", "c"]


def test_sparse_arrays_as_the_gnn_benchmark_has_them(save: Callable[..., str]) -> None:
    adjacency = {"adj_indices": [1, 0], "adj_indptr": [0, 1, 2]}
    attributes = {"attr_data": [1.0, 2], "attr_indices": [0, 2], "attr_indptr": [0, 1, 2], "attr_shape": [2, 3]}
    reader = open_graphs(save(**adjacency, **attributes, labels=[0, 1]), scale="none")
    assert reader.x.tolist() == [[1, 0, 0], [0, 0, 2]]
    assert reader.edges().tolist() == [[1, 0], [0, 1]]


def test_several_graphs_in_one_npz(save: Callable[..., str]) -> None:
    reader = open_graphs(save(x=np.eye(4), edge_index=[[0, 2], [1, 3]], sizes=[2, 2], y=[0, 1]))
    assert isinstance(reader, Collection)
    assert reader[1]["edge_index"].tolist() == [[1, 0], [0, 1]]
    nodes = open_graphs(save(x=np.eye(4), edge_index=[[0, 2], [1, 3]], sizes=[2, 2]), level="node")
    assert len(nodes) == 4


def test_an_empty_graph_among_many_is_broken_and_no_other(save: Callable[..., str]) -> None:
    reader = open_graphs(save(x=np.eye(4), edge_index=[[0, 2], [1, 3]], sizes=[2, 0, 2]))
    with pytest.raises(BrokenItem, match="no nodes"):
        reader[1]
    assert reader.batch([0, 1]) is None
    assert reader.batch([0, 2]) is not None
    assert reader.notices == ["1 graphs have no nodes and count as broken"]
    raw = reader.raw()
    assert raw is not None
    assert np.isfinite(raw).all()


def test_a_graph_with_gaps_is_broken_unless_they_are_zero(save: Callable[..., str]) -> None:
    source = save(x=[[1.0], [np.nan], [2.0], [3.0]], edge_index=[[0, 2], [1, 3]], sizes=[2, 2])
    with pytest.raises(BrokenItem, match="not a number"):
        open_graphs(source)[0]
    assert open_graphs(source)[1]["x"].isfinite().all()
    assert open_graphs(source, missing="zero")[0]["x"].isfinite().all()


def test_edges_that_are_held_out_are_seen_by_nobody(web: str, one: GraphReader) -> None:
    reader, again = (open_graphs(web, hold_edges=0.2) for _ in range(2))
    held = {tuple(pair) for pair in reader.held_edges.T.tolist()}
    seen = {tuple(sorted(pair)) for pair in reader.edges().T.tolist()}
    assert not held & seen
    assert held | seen == {tuple(sorted(pair)) for pair in one.edges().T.tolist()}
    assert len(held) == round(0.2 * len(held | seen))
    assert again.held_edges.tolist() == reader.held_edges.tolist()


def test_cora_is_what_it_is_known_to_be(cora: Path) -> None:
    reader = open_graphs(str(cora))
    assert reader.x.shape == (2708, 1433)
    assert reader.edges().shape == (2, 2 * 5278)
    assert np.bincount(reader.labels("label").astype(int)).tolist() == [351, 217, 418, 818, 426, 298, 180]
    split = reader.split("public")
    assert {part: len(rows) for part, rows in split.items()} == {"train": 140, "val": 500, "test": 1000}
    assert not set(split["train"]) & set(split["val"])
    assert not (set(split["train"]) | set(split["val"])) & set(split["test"])
    assert np.bincount(reader.labels("label")[split["train"]].astype(int)).tolist() == [20] * 7
    assert {"what": "repeated edges", "value": "302 removed"} in reader.summary()
    with pytest.raises(UserError, match="public"):
        reader.split("random")


def test_nci1_is_what_it_is_known_to_be(nci1: Path) -> None:
    reader = open_graphs(str(nci1))
    assert len(reader) == 4110
    assert reader.x.shape == (122747, 37)
    assert np.bincount(reader.labels("label")).tolist() == [2053, 2057]


def test_nodes_are_described_by_their_edges_and_graphs_by_their_size(tmp_path: Path) -> None:
    edges = [(0, 1), (0, 2), (2, 3), *((4, other) for other in range(5, 13)), (0, 4)]
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in edges))
    whole = open_graphs(str(tmp_path / "edges.csv"))
    sampled = open_graphs(str(tmp_path / "edges.csv"), whole=2)
    assert [whole.facts["storage"], sampled.facts["storage"]] == ["whole", "sampled"]
    for reader in (whole, sampled):
        at = {reader.name(index): reader.describe(index) for index in range(len(reader))}
        assert at["0"] == {"edges": "3", "next to": "1, 2, 4"}
        assert at["3"] == {"edges": "1", "next to": "2"}
        assert at["4"]["edges"] == "9"
        assert at["4"]["next to"].endswith(", 3 more")
