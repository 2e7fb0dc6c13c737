"""Every method learns on nodes too; graphs, the plugin's example, are in tests/test_conformance.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unlabeled import plugins
from unlabeled.testing import Bench, check_method
from unlabeled_graph.encoders import GCN, SAGE
from unlabeled_graph.readers import GraphReader

METHODS = list(plugins.load("graph").methods)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_one_graph_taken_whole(one: GraphReader, method: str) -> None:
    registry = plugins.load("graph")
    view = registry.make("view", None, one.facts)
    check_method(registry, one, view, GCN(one.facts, width=16), (method, "gcn"), torch.arange(60))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_a_graph_that_is_sampled(large: GraphReader, method: str) -> None:
    registry = plugins.load("graph")
    view = registry.make("view", None, large.facts)
    check_method(registry, large, view, SAGE(large.facts, width=16), (method, "sage"), torch.arange(12))


def test_the_example_is_read_by_the_kit(tmp_path: Path) -> None:
    Bench("graph", tmp_path).check_reader("graph")
