"""TUDataset's raw text (arXiv 2007.08663): many graphs in files NAME_A.txt, NAME_graph_indicator.txt and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, one_line
from unlabeled_graph.graphs import Graphs

END = "_A.txt"


def names(path: Path) -> list[str]:
    """The data sets in a folder."""
    return [one.name.removesuffix(END) for one in sorted(path.glob(f"*{END}"))]


def read(path: Path) -> Graphs:
    """The graphs of a folder; node labels are categories, node attributes numbers. Edge labels are not used.

    Raises:
        UserError: several data sets in one folder, a file that is missing or is no table of numbers.
    """
    known = names(path)
    if len(known) > 1:
        raise UserError(f"{path} holds {', '.join(known)}; give a folder with one of them")
    stem = path / known[0]
    edges = _table(f"{stem}{END}", np.int64, 2)
    graph = _table(f"{stem}_graph_indicator.txt", np.int64)[:, 0] - 1
    if len(graph) == 0 or (graph < 0).any():
        raise UserError(f"{stem}_graph_indicator.txt must name a graph, from 1, for each node")
    if bool((np.diff(graph) < 0).any()):
        raise UserError(f"the nodes in {stem}_graph_indicator.txt are not in the order of their graphs; sort them")
    labels = _optional(f"{stem}_graph_labels.txt", np.int64)
    count = int(graph.max()) + 1 if labels is None else max(len(labels), int(graph.max()) + 1)
    codes, attributes = _optional(f"{stem}_node_labels.txt", np.int64), _optional(f"{stem}_node_attributes.txt", float)
    crossing = _crossing(edges - 1, graph)
    if crossing is not None:
        raise UserError(f"line {crossing + 1} of {stem}{END} joins nodes of two graphs; mend it")
    return Graphs(
        str(path),
        edges.T - 1,
        np.bincount(graph, minlength=count),
        None if attributes is None else attributes.astype(np.float32),
        codes,
        graph_labels={} if labels is None else {"label": labels[:, 0]},
    )


def _crossing(edges: NDArray[np.int64], graph: NDArray[np.int64]) -> int | None:
    """The first edge between two graphs; edges to nodes that do not exist are `Graphs.checked`'s to name."""
    inside = np.asarray(((edges >= 0) & (edges < len(graph))).all(1))
    ends = graph[np.where(inside[:, None], edges, 0)]
    wrong: NDArray[np.int64] = np.flatnonzero(inside & np.not_equal(ends[:, 0], ends[:, 1]))
    return int(wrong[0]) if len(wrong) else None


def _optional(path: str, kind: Any) -> NDArray[Any] | None:
    return _table(path, kind) if Path(path).exists() else None


def _table(path: str, kind: Any, columns: int | None = None) -> NDArray[Any]:
    """[lines, columns]."""
    try:
        table = np.loadtxt(path, dtype=kind, delimiter=",", ndmin=2)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the data set cannot be read without it") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no table of numbers ({one_line(error, 120)}); mend it") from None
    if table.size == 0:
        table = table.reshape(0, columns or 1)
    if columns and table.shape[1] != columns:
        raise UserError(f"{path} has {table.shape[1]} numbers a line; it needs {columns}")
    return table
