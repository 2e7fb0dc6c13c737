"""Graphs for unlabeled: citation networks, molecules, edge lists; a sample is a graph, or a node of one big graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.hookspecs import hookimpl

if TYPE_CHECKING:
    from unlabeled.contract import Batch, Encoder, Reader, Sample, Target, View
    from unlabeled.masking import Mask
    from unlabeled.methods import Method


@hookimpl
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    from unlabeled_graph.readers import open_graphs

    return {"graph": open_graphs}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    from unlabeled_graph.views import VIEWS

    return VIEWS


@hookimpl
def unlabeled_collate(samples: Sequence[Sample]) -> Batch | None:
    from unlabeled_graph.batches import collate

    return collate(samples)


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    from unlabeled_graph.encoders import ENCODERS

    return ENCODERS


@hookimpl
def unlabeled_masks() -> Mapping[str, Callable[..., Mask]]:
    from unlabeled_graph.masks import NeighbourhoodMask

    return {"neighbourhood": NeighbourhoodMask}


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled_graph.targets import Propagated

    return {"propagated": Propagated}


@hookimpl
def unlabeled_methods() -> Mapping[str, Method]:
    from unlabeled_graph.methods import METHODS

    return METHODS


@hookimpl
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    from unlabeled_graph.recipes import RECIPES

    return RECIPES


@hookimpl
def unlabeled_commands() -> Mapping[str, Callable[[list[str]], None]]:
    from unlabeled_graph.commands import COMMANDS

    return COMMANDS


@hookimpl
def unlabeled_example(folder: Path) -> str:
    from unlabeled_graph.example import write

    return write(folder)
