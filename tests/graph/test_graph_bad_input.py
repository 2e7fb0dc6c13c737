"""Whatever a user can get wrong is one sentence that names it; a pickle that wants to run something is refused."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from unlabeled.errors import UserError
from unlabeled_graph.readers import open_graphs
from unlabeled_graph.sources.planetoid import unpickle

PAIR = {"x": np.eye(2), "edge_index": [[0], [1]]}


def refused(source: str, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        open_graphs(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edge_index": [[0], [5]]}, "joins nodes 0 and 5, and the nodes are 0 to 1"),
        ({"edge_index": [[-1], [0]]}, "joins nodes -1 and 0"),
        ({"edge_index": [[0.5], [1]]}, "must be whole numbers"),
        ({"edge_index": [[0, 1, 1]]}, r"must be whole numbers \[2, E\]"),
        ({"x": [[1.0], [np.nan]]}, "1 nodes .* not a number, the first is 1: .*--missing zero"),
        ({"x": [[1.0], [np.inf]]}, "attribute of node 1 .* infinite"),
        ({"y": [0, 1, 2]}, "2 nodes and 3 labels 'label'"),
        ({"x": np.zeros((0, 3)), "edge_index": np.zeros((2, 0), int)}, "has no nodes"),
        ({"sizes": [1, 1], "y": [0, 1, 2]}, "labels 'label'"),
        ({"sizes": [3]}, "3 nodes and 2 rows of node attributes"),
    ],
)
def test_a_graph_that_cannot_be(save: Callable[..., str], change: dict[str, Any], words: str) -> None:
    import re

    assert re.search(words, refused(save(**{**PAIR, **change})))


def test_an_npz_without_edges_or_with_objects(save: Callable[..., str], tmp_path: Path) -> None:
    assert "needs an array edge_index" in refused(save(x=np.eye(2)))
    np.savez(tmp_path / "o.npz", edge_index=np.array([{}], dtype=object))
    assert "without running code" in refused(str(tmp_path / "o.npz"))
    (tmp_path / "z.npz").write_bytes(b"nothing")
    assert "cannot be read" in refused(str(tmp_path / "z.npz"))


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    assert "does not exist" in refused(str(tmp_path / "no"))
    assert "no graph that can be read" in refused(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "edge"}, "level cannot be 'edge'"),
        ({"scale": "log"}, "scale cannot be 'log'"),
        ({"fanout": [0], "whole": 0}, "fanout"),
        ({"hold_edges": 1.0}, "hold_edges is a share"),
        ({"nodes": "x.csv"}, "are for edge lists"),
    ],
)
def test_options_that_mean_nothing(save: Callable[..., str], options: dict[str, Any], words: str) -> None:
    assert words in refused(save(**PAIR), **options)


def test_facts_of_other_features(save: Callable[..., str]) -> None:
    facts = open_graphs(save(**PAIR)).facts
    assert "has 3 node attributes and the encoder knows 2" in refused(
        save(x=np.eye(3), edge_index=[[0], [1]]), facts=facts
    )


EDGES, NODES = "source,target\na,b\n", "id,age\na,1\nb,2\n"


@pytest.mark.parametrize(
    ("edges", "nodes", "words"),
    [
        ("source,target\na,zed\n", NODES, "names node 'zed'"),
        (EDGES, "id,age\na,1\na,2\nb,3\n", "'a' stands twice"),
        ("one\na\n", NODES, "one column"),
        ("source,target\n", NODES, "no rows"),
        ("source,target\na,\n", "id,age\na,1\n", "empty cells"),
        ("source,target\n1,\n2,1\n", "id,age\n1,1\n2,2\n", "empty cells"),
        ("source,target\n1.5,2\n", "id,age\n1,1\n2,2\n", "broken numbers"),
        ("source,target\na,b,c\n", NODES, "cannot be read as a table"),
    ],
)
def test_an_edge_list_that_does_not_fit(tmp_path: Path, edges: str, nodes: str, words: str) -> None:
    (tmp_path / "edges.csv").write_text(edges)
    (tmp_path / "nodes.csv").write_text(nodes)
    assert words in refused(str(tmp_path))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text(EDGES)
    (tmp_path / "nodes.csv").write_text(NODES)
    assert "no column 'agee'; did you mean age?" in refused(str(tmp_path), exclude=["agee"])


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("A", "1, 2\n1, 99999\n", "joins nodes 0 and 99998"),
        ("A", "1, 2\n1, 50\n", "line 2 .* joins nodes of two graphs"),
        ("A", "1, 2, 3\n", "3 numbers a line; it needs 2"),
        ("A", "one, two\n", "no table of numbers"),
        ("graph_indicator", "2\n1\n", "not in the order"),
        ("graph_labels", "1\n0\n1\n", "12 graphs and 3 labels"),
        ("node_labels", "1\n0\n", "2 rows of node categories"),
    ],
)
def test_tu_files_that_do_not_fit(rings: str, tmp_path: Path, part: str, text: str, words: str) -> None:
    import re

    folder = shutil.copytree(rings, tmp_path / "copy")
    (folder / f"RINGS_{part}.txt").write_text(text)
    assert re.search(words, refused(str(folder)))


def test_a_tu_folder_that_lacks_a_file(rings: str, tmp_path: Path) -> None:
    folder = shutil.copytree(rings, tmp_path / "copy")
    (folder / "RINGS_graph_indicator.txt").unlink()
    assert "RINGS_graph_indicator.txt is missing" in refused(str(folder))


# ---- pickles


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/unlabeled-was-here",)


class Builder:
    def __reduce__(self) -> Any:
        return getattr, ("text", "upper")


@pytest.mark.parametrize(
    ("thing", "name"),
    [(Bomb(), "posix.system"), (Builder(), "__builtin__.getattr"), (sparse.coo_matrix(np.eye(2)), "scipy")],
)
def test_a_pickle_that_asks_for_anything_else_is_refused_by_name(tmp_path: Path, thing: object, name: str) -> None:
    path = tmp_path / "ind.evil.x"
    path.write_bytes(pickle.dumps(thing, protocol=2))
    with pytest.raises(UserError, match=f"is refused: it asks for {name}"):
        unpickle(path)


def test_the_reconstructor_makes_sparse_rows_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ind.evil.x"
    path.write_bytes(b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.")
    with pytest.raises(UserError, match="no sparse matrix"):
        unpickle(path)


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ind.evil.x"
    path.write_bytes(pickle.dumps(np.eye(3), protocol=2)[:-20])
    with pytest.raises(UserError, match=r"ind\.evil\.x is refused"):
        unpickle(path)
    with pytest.raises(UserError, match="is missing"):
        unpickle(tmp_path / "ind.evil.y")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A network of 6 nodes in Planetoid's files; node 4 is in none of them, as some of CiteSeer's are."""
    x, label = sparse.csr_matrix(np.eye(6, dtype=np.float32)), np.eye(2, dtype=np.int64)[[0, 1, 0, 0, 1]]
    graph = defaultdict(list, {0: [1], 1: [0, 2], 2: [1, 5], 3: [5], 5: [3, 2]})
    parts = {"x": x[:2], "y": label[:2], "allx": x[:3], "ally": label[:3], "tx": x[[5, 3]], "ty": label[3:]}
    for part, value in {**parts, "graph": graph}.items():
        (tmp_path / f"ind.six.{part}").write_bytes(pickle.dumps(value, protocol=2))
    (tmp_path / "ind.six.test.index").write_text("5\n3\n")
    return tmp_path


def test_planetoid_files_put_test_rows_where_the_index_says(raw: Path) -> None:
    reader = open_graphs(str(raw))
    assert reader.x.argmax(1).tolist() == [0, 1, 2, 3, 0, 5]
    assert reader.x[4].sum() == 0
    np.testing.assert_array_equal(reader.labels("label"), [0, 1, 0, 1, np.nan, 0])
    assert reader.split()["test"].tolist() == [3, 5]
    assert open_graphs(str(raw / "ind.six.graph")).x.equal(reader.x)


def test_planetoid_files_that_do_not_fit(raw: Path) -> None:
    shutil.copy(raw / "ind.six.graph", raw / "ind.two.graph")
    assert "holds six, two; name one" in refused(str(raw))
    (raw / "ind.six.test.index").write_text("5\n")
    assert "do not fit each other" in refused(str(raw / "ind.six.graph"))
    (raw / "ind.six.tx").unlink()
    assert "is missing" in refused(str(raw / "ind.six.graph"))


def test_a_data_set_that_pyg_does_not_have() -> None:
    assert "no data set of PyG is called 'Planetoidd'; did you mean" in refused("pyg:Planetoidd/Cora")


def test_a_data_set_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch_geometric import datasets

    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("UNLABELED_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "Planetoid", offline)
    assert "could not be downloaded (OSError: no route to host)" in refused("pyg:Planetoid/Cora")


def test_a_data_set_of_pyg_is_the_same_as_its_files(
    monkeypatch: pytest.MonkeyPatch, rings: str, tmp_path: Path
) -> None:
    import torch
    from torch_geometric import datasets
    from torch_geometric.data import Data

    files = open_graphs(rings)
    items = [files[index] for index in range(len(files))]
    graphs = [Data(x=one["x"], edge_index=one["edge_index"], y=torch.tensor([n % 2])) for n, one in enumerate(items)]
    monkeypatch.setenv("UNLABELED_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "TUDataset", lambda root, name: graphs)
    reader = open_graphs("pyg:TUDataset/RINGS", scale="none")
    assert reader.edges().tolist() == files.edges().tolist()
    assert reader.x.equal(files.x)
    assert reader.labels("label").tolist() == files.labels("label").tolist()
