"""What a node is to an encoder: given attributes and categories, or its degree where nothing is given."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from unlabeled.contract import Facts
from unlabeled.errors import UserError
from unlabeled_graph.graphs import Floats, Graphs, degrees

Scale = Literal["auto", "rows", "columns", "none"]
SCALES = ("auto", "rows", "columns", "none")
MOST_DEGREE = 99  # larger degrees share a column


def fit(graphs: Graphs, scale: Scale) -> dict[str, Any]:
    """The facts of node features, from all nodes: plain JSON."""
    if scale not in SCALES:
        raise UserError(f"scale cannot be {scale!r}; there are: {', '.join(SCALES)}")
    x, codes = graphs.attributes, graphs.codes
    if x is None and codes is None:
        most = int(min(degrees(graphs).max(initial=0), MOST_DEGREE))
        return {"attributes": 0, "scale": "none", "categories": [], "degrees": most, "width": most + 1}
    known = [] if codes is None else [np.unique(column).tolist() for column in codes.T]
    facts: dict[str, Any] = {"attributes": 0, "scale": "none", "categories": known, "degrees": None}
    if x is not None:
        facts["attributes"] = x.shape[1]
        facts["scale"] = _choose(x) if scale == "auto" else scale
        if facts["scale"] == "columns":
            mean, deviation = np.nanmean(x, 0, np.float64), np.nanstd(x, 0, np.float64)
            facts |= {"mean": mean.tolist(), "deviation": np.where(deviation > 1e-6, deviation, 1.0).tolist()}
    facts["width"] = facts["attributes"] + sum(len(values) for values in known)
    return facts


def _choose(x: Floats) -> str:
    """Rows to sum 1 for bags of words, as citation networks are used; else columns to mean 0, deviation 1."""
    return "rows" if bool((x >= 0).all()) and np.count_nonzero(x) * 2 < x.size else "columns"


def apply(graphs: Graphs, facts: Facts) -> Floats:
    """[N, V] features by known facts.

    Raises:
        UserError: the nodes have other attributes than those that the facts are of.
    """
    if facts["degrees"] is not None:
        out = np.zeros((graphs.nodes, facts["width"]), np.float32)
        out[np.arange(graphs.nodes), degrees(graphs).clip(max=facts["degrees"])] = 1
        return out
    parts: list[Floats] = []
    have = 0 if graphs.attributes is None else graphs.attributes.shape[1]
    if have != facts["attributes"]:
        raise UserError(f"{graphs.title} has {have} node attributes and the encoder knows {facts['attributes']}")
    if graphs.attributes is not None:
        parts.append(_scaled(graphs.attributes, facts))
    columns = 0 if graphs.codes is None else graphs.codes.shape[1]
    if columns != len(facts["categories"]):
        raise UserError(
            f"{graphs.title} has {columns} categories a node and the encoder knows {len(facts['categories'])}"
        )
    for number, known in enumerate(facts["categories"]):
        assert graphs.codes is not None
        parts.append((graphs.codes[:, number, None] == np.array(known)[None]).astype(np.float32))
    return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]


def _scaled(x: Floats, facts: Facts) -> Floats:
    out = x
    if facts["scale"] == "rows":
        total = x.sum(1, keepdims=True)
        out = np.divide(x, total, out=np.zeros_like(x), where=total != 0)
    elif facts["scale"] == "columns":
        mean, deviation = (np.array(facts[name], np.float32) for name in ("mean", "deviation"))
        np.divide(x - mean, deviation, out=(out := np.empty_like(x)))
    return out


def described(facts: Facts) -> str:
    """The features in a few words, for `inspect`."""
    if facts["degrees"] is not None:
        return f"degree, 0 to {facts['degrees']}"
    parts = [f"{facts['attributes']:,} attributes, scaled: {facts['scale']}"] if facts["attributes"] else []
    parts += [f"{len(known)} categories" for known in facts["categories"]]
    return "; ".join(parts)
