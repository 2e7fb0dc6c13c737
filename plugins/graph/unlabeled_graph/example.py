"""Tiny graphs shaped like real ones, for tests and the conformance kit."""

from __future__ import annotations

import random
from pathlib import Path

GRAPHS = 12
ATOMS = 4


def write(folder: Path) -> str:
    """A TU folder of 12 uneven graphs: rings with chains, node labels, a lonely node, graph labels; its path."""
    chance = random.Random(0)
    edges: list[tuple[int, int]] = []
    indicator: list[int] = []
    atoms: list[int] = []
    for graph in range(1, GRAPHS + 1):
        first, ring, chain = len(indicator) + 1, 3 + graph % 4, chance.randint(1, 4)
        edges += [(first + at, first + (at + 1) % ring) for at in range(ring)]
        edges += [(first + ring + at - 1, first + ring + at) for at in range(chain)]
        nodes = ring + chain + (graph == 2)  # the second graph has a node without edges
        indicator += [graph] * nodes
        atoms += [chance.randrange(ATOMS) for _ in range(nodes)]
    both = [f"{a}, {b}" for one, other in edges for a, b in ((one, other), (other, one))]
    labels = [str(graph % 2) for graph in range(GRAPHS)]
    parts = {
        "A": both,
        "graph_indicator": [*map(str, indicator)],
        "graph_labels": labels,
        "node_labels": [*map(str, atoms)],
    }
    for part, lines in parts.items():
        (folder / f"RINGS_{part}.txt").write_text("\n".join(lines) + "\n")
    return str(folder)
