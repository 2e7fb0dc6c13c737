"""Where graphs come from: Planetoid and TU folders, PyG data sets by name, edge lists, npz; each gives `Graphs`."""

from __future__ import annotations

from pathlib import Path

from unlabeled.errors import UserError
from unlabeled_graph.graphs import Graphs

TABLES = (".csv", ".tsv", ".parquet", ".pq")
KINDS = (
    "a Planetoid folder (ind.NAME.graph ...), a TU folder (NAME_A.txt ...), an edge list (.csv, .tsv, .parquet), "
    "an .npz, or pyg:CLASS/NAME"
)


def find(source: str, nodes: str | None = None, exclude: list[str] | None = None) -> Graphs:
    """The graphs behind a path or a name.

    Args:
        source: see KINDS.
        nodes: the node table beside an edge list.
        exclude: columns of the node table that are no features.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    from unlabeled_graph.sources import npz, planetoid, pyg, tables, tu

    path = Path(source)
    edges = source if path.suffix in TABLES else None
    if path.is_dir():
        edges = next((str(path / f"edges{end}") for end in TABLES if (path / f"edges{end}").exists()), None)
        nodes = nodes or next((str(path / f"nodes{end}") for end in TABLES if (path / f"nodes{end}").exists()), None)
    if edges is None and (nodes or exclude):
        raise UserError(f"nodes and exclude are for edge lists, and {source} is none; leave them out")
    if source.startswith(pyg.PREFIX):
        return pyg.read(source).checked()
    if not path.exists():
        raise UserError(f"{source} does not exist; give {KINDS}")
    if edges is not None:
        return tables.read(source, edges, nodes, exclude or []).checked()
    if planetoid.names(path):
        return planetoid.read(path).checked()
    if path.is_dir() and tu.names(path):
        return tu.read(path).checked()
    if path.suffix == ".npz":
        return npz.read(path).checked()
    raise UserError(f"{source} holds no graph that can be read; give {KINDS}")
