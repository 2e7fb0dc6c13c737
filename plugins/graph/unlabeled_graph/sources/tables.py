"""An edge list and a node table in CSV or Parquet; node ids may be text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, nearest, one_line
from unlabeled_graph.graphs import Graphs

SOURCES, TARGETS, IDS = ("source", "src", "from"), ("target", "dst", "to"), ("id", "node", "node_id")
LABELS = ("label", "y", "class", "target")
PARTS = ("train", "val", "test")


def read(title: str, edges: str, nodes: str | None, exclude: list[str]) -> Graphs:
    """One graph of an edge list (columns source and target, or the first two) and a node table (id, or the first).

    Numeric columns of the node table are attributes; text columns, `label` and what is excluded are labels; a column
    `split` of train, val and test is a split. Without a table the nodes are those that an edge names.

    Raises:
        UserError: a file that is no table, columns or nodes that are not there, ids that occur twice.
    """
    table = _table(edges)
    if table.num_columns < 2:
        raise UserError(f"{edges} has one column; an edge list needs two, source and target")
    ends = [_column(table, known, number) for number, known in enumerate((SOURCES, TARGETS))]
    source, target = (_ids(table.column(name), edges, name) for name in ends)
    if nodes is None:
        ids, numbers = np.unique(np.concatenate([source, target]), return_inverse=True)
        joined = numbers.reshape(2, -1).astype(np.int64)
        return Graphs(title, joined, np.array([len(ids)]), names=[str(one) for one in ids])
    rows = _table(nodes)
    identity = _column(rows, IDS, 0)
    ids = _ids(rows.column(identity), nodes, identity)
    joined = np.stack([_numbers(end, ids, edges, nodes) for end in (source, target)])
    for name in exclude:
        if name not in rows.column_names:
            raise UserError(f"exclude: {nodes} has no column {name!r}; {nearest(name, rows.column_names)}")
    return _with_table(title, joined, rows, ids, identity, exclude)


def _with_table(
    title: str, edges: NDArray[np.int64], rows: Any, ids: NDArray[Any], identity: str, exclude: list[str]
) -> Graphs:
    columns: dict[str, NDArray[Any]] = {}
    labels: dict[str, NDArray[Any]] = {}
    split: dict[str, NDArray[np.int64]] = {}
    for name in rows.column_names:
        if name == identity:
            continue
        values = np.asarray(rows.column(name).to_numpy(zero_copy_only=False))
        text = values.dtype.kind not in "biuf"
        if name == "split" and text and set(values[values != None]) <= set(PARTS):  # noqa: E711
            split = {part: np.flatnonzero(values == part) for part in PARTS}
        elif text or name in exclude or name.lower() in LABELS:
            labels[name] = np.where(values == None, "", values).astype(str) if text else values  # noqa: E711
        else:
            columns[name] = values.astype(np.float32)
    x = np.stack(list(columns.values()), 1) if columns else None
    names = [str(one) for one in ids]
    splits = {"public": split} if split else {}
    return Graphs(title, edges, np.array([len(ids)]), x, None, names, labels, {}, splits, tuple(columns))


def _table(path: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.endswith((".parquet", ".pq")):
            table = parquet.read_table(path)
        else:
            options = csv.ParseOptions(delimiter="\t" if path.endswith(".tsv") else ",")
            table = csv.read_csv(path, parse_options=options)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a CSV or Parquet file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as a table ({one_line(error, 120)}); mend it") from None
    if table.num_rows == 0:
        raise UserError(f"{Path(path).name} has no rows under its header; give it some")
    return table.rename_columns([name.strip() for name in table.column_names])


def _column(table: Any, known: tuple[str, ...], number: int) -> str:
    lower = {name.lower(): name for name in table.column_names}
    return str(next((lower[name] for name in known if name in lower), table.column_names[number]))


def _ids(column: Any, path: str, name: str) -> NDArray[Any]:
    if column.null_count:
        raise UserError(f"column {name!r} of {path} has empty cells; every row needs a node there")
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind == "f":
        raise UserError(f"column {name!r} of {path} holds broken numbers; node ids are whole numbers or text")
    return values if values.dtype.kind in "iu" else values.astype(str)


def _numbers(ends: NDArray[Any], ids: NDArray[Any], edges: str, nodes: str) -> NDArray[np.int64]:
    """Row numbers of nodes in the table."""
    if (ends.dtype.kind == "U") != (ids.dtype.kind == "U"):
        ends, ids = ends.astype(str), ids.astype(str)
    order = ids.argsort(kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        raise UserError(f"node {str(ids[order][twice[0]])!r} stands twice in {nodes}; keep one row a node")
    place = np.searchsorted(ids[order], ends).clip(max=len(ids) - 1)
    absent = np.flatnonzero(ids[order][place] != ends)
    if len(absent):
        raise UserError(
            f"an edge in {edges} names node {str(ends[absent[0]])!r}, which {nodes} does not have; "
            "add its row, or remove the edge"
        )
    found: NDArray[np.int64] = order[place].astype(np.int64)
    return found
