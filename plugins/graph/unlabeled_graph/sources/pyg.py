"""PyG's data sets by class and name, as pyg:Planetoid/Cora; downloaded where there is a network."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, choose, one_line
from unlabeled.files import DOWNLOADS, downloads
from unlabeled_graph.graphs import Graphs

PREFIX = "pyg:"
MASKS = {"train": "train_mask", "val": "val_mask", "test": "test_mask"}


def read(source: str) -> Graphs:
    """All graphs of a data set, with its own masks as the split "public".

    Raises:
        UserError: there is no such data set, or it cannot be downloaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see convolutions
        from torch_geometric import datasets

    kind, _, name = source.removeprefix(PREFIX).partition("/")
    classes = {one: getattr(datasets, one) for one in datasets.__all__}
    factory = choose("data set of PyG", kind, classes)
    root = downloads("pyg") / kind
    try:
        found = factory(str(root), name=name) if name else factory(str(root))
    except (TypeError, AssertionError, KeyError, ValueError) as error:
        reason = one_line(error, 160) or f"{kind} knows no {name!r}"
        raise UserError(f"{source} cannot be opened ({reason}); write pyg:CLASS/NAME, as pyg:Planetoid/Cora") from None
    except Exception as error:  # each data set downloads and unpacks in its own way
        reason = f"{type(error).__name__}: {one_line(error, None)}"[:160]
        raise UserError(
            f"{source} could not be downloaded ({reason}); without a network give raw files instead, or set "
            f"{DOWNLOADS} to a folder that has it"
        ) from None
    return _joined(source, [found[number] for number in range(len(found))])


def _joined(title: str, graphs: list[Any]) -> Graphs:
    sizes = np.array([int(one.num_nodes) for one in graphs])
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    edges = [one.edge_index.numpy() + start for one, start in zip(graphs, starts, strict=True)]
    labels = _all(graphs, "y")
    node_labels = labels is not None and len(labels) == sizes.sum() and (len(graphs) == 1 or len(labels) > len(graphs))
    table: dict[str, NDArray[Any]] = {}
    if labels is not None and labels.ndim == 1:
        table = {"label": labels}
    elif labels is not None:
        table = {f"label{number}": column for number, column in enumerate(labels.T)}
    masks = {part: _all(graphs, name) for part, name in MASKS.items()}
    split = {part: np.flatnonzero(m[:, 0] if m.ndim == 2 else m) for part, m in masks.items() if m is not None}
    return Graphs(
        title,
        np.concatenate(edges, 1).astype(np.int64),
        sizes,
        _all(graphs, "x"),
        node_labels=table if node_labels else {},
        graph_labels={} if node_labels else table,
        splits={"public": split} if len(split) == len(MASKS) else {},
    )


def _all(graphs: list[Any], name: str) -> NDArray[Any] | None:
    """One array of all graphs' tensors of that name; None where any has none."""
    parts = [getattr(one, name, None) for one in graphs]
    there = [np.atleast_1d(part.numpy()) for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    array: NDArray[Any] = np.concatenate(there)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 and name == "y" else array
    return array.astype(np.float32) if name == "x" else array
