"""Graphs on disk, tiny ones made here, and Cora and NCI1 where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at_hand import at_hand
from unlabeled_graph.example import write
from unlabeled_graph.readers import GraphReader, open_graphs


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example: 12 uneven graphs in TU's format."""
    return write(tmp_path_factory.mktemp("rings"))


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One graph of 60 nodes in two communities, with features, labels and masks, as .npz."""
    chance = np.random.default_rng(0)
    label = np.arange(60) % 2
    same = label[:, None] == label
    edges = np.argwhere(np.triu(chance.random((60, 60)) < np.where(same, 0.2, 0.02), 1)).T
    x = (chance.random((60, 12)) < 0.15 + 0.2 * (np.arange(12) % 2 == label[:, None])).astype(np.float32)
    masks = {name: np.arange(60) // 20 == part for part, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    path = tmp_path_factory.mktemp("web") / "web.npz"
    np.savez(path, x=x, edge_index=edges, y=label, **masks)
    return str(path)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """save(x=..., edge_index=...) writes an .npz and returns its path."""

    def write_file(**arrays: Any) -> str:
        np.savez(tmp_path / "graph.npz", **{name: np.asarray(value) for name, value in arrays.items()})
        return str(tmp_path / "graph.npz")

    return write_file


@pytest.fixture(scope="session")
def many(rings: str) -> GraphReader:
    return open_graphs(rings)


@pytest.fixture(scope="session")
def one(web: str) -> GraphReader:
    return open_graphs(web)


@pytest.fixture(scope="session")
def large(web: str) -> GraphReader:
    """The one graph, sampled as if it were large."""
    return open_graphs(web, whole=0, fanout=[4, 3])


@pytest.fixture(scope="session")
def cora() -> Path:
    return at_hand("graphs/planetoid/cora")


@pytest.fixture(scope="session")
def nci1() -> Path:
    return at_hand("graphs/tu/NCI1")
