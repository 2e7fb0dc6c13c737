"""Graphs in one .npz: arrays by the names that PyG, DGL exports and the GNN benchmark use; no pickled objects."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, one_line
from unlabeled_graph.graphs import Graphs

FEATURES = ("x", "features", "attr", "attr_matrix", "node_attr")
EDGES = ("edge_index", "edges")
LABELS = ("y", "label", "labels")
MASKS = {"train": "train_mask", "val": "val_mask", "test": "test_mask"}


def read(path: Path) -> Graphs:
    """edge_index [2, E] (or adj_indices and adj_indptr), x [N, F] (dense, or attr_data, attr_indices, attr_indptr),
    y, train_mask, val_mask, test_mask; `sizes` [G] nodes of each graph where there are several.

    Raises:
        UserError: it is no npz, needs pickle, or lacks edges.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        reason = one_line(error, 120)
        raise UserError(f"{path} cannot be read without running code ({reason}); save plain arrays") from None
    x = _matrix(arrays, "attr", FEATURES)
    edges = _edges(arrays, path)
    labels = _first(arrays, LABELS)
    sizes = arrays.get("sizes")
    if sizes is None:
        given = next((len(one) for one in (x, labels) if one is not None), int(edges.max(initial=-1)) + 1)
        sizes = np.array([given])
    masks = {part: np.flatnonzero(arrays[name]) for part, name in MASKS.items() if name in arrays}
    of_graphs = labels is not None and len(sizes) > 1 and len(labels) == len(sizes)
    table = {} if labels is None else {"label": labels.argmax(1) if labels.ndim == 2 else labels}
    return Graphs(
        str(path),
        edges,
        sizes.astype(np.int64),
        None if x is None else x.astype(np.float32),
        node_labels={} if of_graphs else table,
        graph_labels=table if of_graphs else {},
        splits={"public": masks} if len(masks) == len(MASKS) else {},
    )


def _first(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _edges(arrays: Mapping[str, NDArray[Any]], path: Path) -> NDArray[np.int64]:
    edges = _first(arrays, EDGES)
    if edges is None and {"adj_indices", "adj_indptr"} <= set(arrays):
        indptr = arrays["adj_indptr"].astype(np.int64)
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        edges = np.stack([rows, arrays["adj_indices"].astype(np.int64)])
    if edges is None:
        raise UserError(f"{path} has no edges; it needs an array edge_index [2, E], and has {', '.join(arrays)}")
    if edges.ndim == 2 and edges.shape[0] != 2 and edges.shape[1] == 2:
        edges = edges.T
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise UserError(f"the edges in {path} are {edges.dtype} {edges.shape}; they must be whole numbers [2, E]")
    return edges.astype(np.int64)


def _matrix(arrays: Mapping[str, NDArray[Any]], sparse_name: str, names: tuple[str, ...]) -> NDArray[Any] | None:
    data = [arrays.get(f"{sparse_name}_{part}") for part in ("data", "indices", "indptr")]
    if all(one is not None for one in data):
        from scipy import sparse

        shape = arrays.get(f"{sparse_name}_shape")
        matrix = sparse.csr_array(tuple(data), shape=None if shape is None else tuple(shape))
        dense: NDArray[Any] = matrix.toarray()
        return dense
    return _first(arrays, names)
