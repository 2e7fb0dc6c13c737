"""Planetoid's raw files (arXiv 1603.08861): Python 2 pickles, read without running anything that a pickle asks for."""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError, one_line
from unlabeled_graph.graphs import Graphs

PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
VALIDATION = 500  # nodes of the public split that follow the training ones


class _Rows:
    """Stands for scipy's csr_matrix: takes its arrays from the pickle and runs none of its code."""

    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[Any]
    _shape: tuple[int, int]


def _bare(kind: type, base: type, state: object) -> object:
    """copyreg's reconstructor for the one class that needs it."""
    if kind is not _Rows:
        raise pickle.UnpicklingError("it rebuilds something that is no sparse matrix")
    return _Rows()


def _bytes(text: str, encoding: str) -> bytes:
    """What stands for bytes in a pickle that Python 3 wrote for Python 2."""
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows numpy arrays, sparse rows and dictionaries of lists, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        numeric = module in ("numpy.core.multiarray", "numpy._core.multiarray")
        if numeric and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in ("scipy.sparse.csr", "scipy.sparse._csr") and name == "csr_matrix":
            return _Rows
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _bare
        if module == "_codecs" and name == "encode":
            return _bytes
        if module == "collections" and name == "defaultdict":
            return defaultdict
        if module in ("__builtin__", "builtins") and name in ("list", "object"):
            return {"list": list, "object": object}[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")


def unpickle(path: Path) -> Any:
    """The content of one raw file.

    Raises:
        UserError: it is no such pickle, or asks for anything but arrays, sparse matrices and lists.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; Planetoid data are the files ind.NAME.{{{','.join(PARTS)}}}") from None
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{path} is refused: {one_line(error, None)}; get it from its source again") from None


def names(path: Path) -> list[str]:
    """The data sets in a folder, or that of one ind.NAME.graph."""
    found = sorted(path.glob("ind.*.graph")) if path.is_dir() else [path] * path.match("ind.*.graph")
    return [one.name.removeprefix("ind.").removesuffix(".graph") for one in found]


def read(path: Path) -> Graphs:
    """One citation network with its public split.

    Raises:
        UserError: several networks in one folder, a file that is missing, refused or does not fit the others.
    """
    known = names(path)
    if len(known) > 1:
        raise UserError(f"{path} holds {', '.join(known)}; name one, as {path / f'ind.{known[0]}.graph'}")
    stem = (path if path.is_dir() else path.parent) / f"ind.{known[0]}"
    part = {name: unpickle(Path(f"{stem}.{name}")) for name in PARTS[:-1]}
    try:
        test = np.loadtxt(f"{stem}.test.index", dtype=np.int64, ndmin=1)
        return _assemble(str(path), part, test)
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        reason = one_line(error, 160)
        raise UserError(f"the files {stem}.* do not fit each other ({reason}); get them again") from None


def _assemble(title: str, part: dict[str, Any], test: NDArray[np.int64]) -> Graphs:
    """Rows of allx come first; row i of tx is node test[i]. A node in neither (CiteSeer) has zeros and no label."""
    known, labels = _dense(part["allx"]), np.asarray(part["ally"])
    nodes = max(int(test.max()) + 1, len(known), len(part["graph"]))
    x = np.zeros((nodes, known.shape[1]), np.float32)
    one_hot = np.zeros((nodes, labels.shape[1]), np.float32)
    x[: len(known)], one_hot[: len(known)] = known, labels
    x[test], one_hot[test] = _dense(part["tx"]), np.asarray(part["ty"])
    names_ = np.where(one_hot.any(1), one_hot.argmax(1).astype(np.float64), np.nan)
    degree = [len(part["graph"].get(node, ())) for node in range(nodes)]
    source = np.repeat(np.arange(nodes), degree)
    target = np.concatenate([np.asarray(part["graph"].get(node, ()), np.int64) for node in range(nodes)])
    train = len(np.asarray(part["y"]))
    public = {"train": np.arange(train), "val": np.arange(train, train + VALIDATION), "test": np.sort(test)}
    return Graphs(
        title,
        np.stack([source, target]),
        np.array([nodes]),
        x,
        node_labels={"label": names_},
        splits={"public": public},
    )


def _dense(rows: Any) -> NDArray[np.float32]:
    if isinstance(rows, np.ndarray):
        return rows.astype(np.float32)
    from scipy import sparse

    matrix = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=rows._shape)
    dense: NDArray[np.float32] = matrix.toarray().astype(np.float32)
    return dense
