"""Reads a page as a strict parser does, and run folders as the loop leaves them, but for the encoder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Node(dict[str, Any]):
    """An element as read: attributes, what is inside, and its text."""

    def __init__(self, tag: str, attributes: list[tuple[str, str | None]]):
        super().__init__(attributes)
        self.tag, self.inside = tag, list[Node | str]()

    def every(self, tag: str, class_: str = "") -> Iterator[Node]:
        for one in self.inside:
            if isinstance(one, Node):
                if one.tag == tag and set(class_.split()) <= set((one.get("class") or "").split()):
                    yield one
                yield from one.every(tag, class_)

    def all(self) -> Iterator[Node]:
        for one in self.inside:
            if isinstance(one, Node):
                yield one
                yield from one.all()

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.inside)


class Reader(HTMLParser):
    """A tree of elements; fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open = [Node("", [])]
        self.feed(text)
        self.close()
        assert len(self.open) == 1, f"{self.open[-1].tag} is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Node(tag, attrs)
        self.open[-1].inside.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def opened(path: Path) -> Node:
    return Reader(path.read_text()).open[0]


def figures(page: Node) -> dict[str, Node]:
    found = [one for one in page.every("figure") if any(one.every("path"))]
    return {next(one.every("figcaption")).inside[0]: one for one in found}  # type: ignore[misc]


def scale(figure: Node, axis: str) -> tuple[float, float]:
    """value = a + b × pixel, from the labels of an axis as an eye would take them."""
    place = "y" if axis == "y" else "x"
    ticks = [(float(tick[place]), float(tick.text.replace(",", ""))) for tick in figure.every("text", f"tick {axis}")]
    assert len(ticks) >= 2, "an axis with fewer than two figures cannot be read"
    (p, v), (q, w) = ticks[0], ticks[-1]
    slope = (w - v) / (q - p)
    return v - slope * p, slope


def drawn(figure: Node, path: Node) -> list[tuple[float, float]]:
    """(step, value) of a curve, read off the axes."""
    (a, b), (c, d) = scale(figure, "x"), scale(figure, "y")
    pixels = re.findall(r"(-?[\d.]+),(-?[\d.]+)", path["d"])
    return [(a + b * float(x), c + d * float(y)) for x, y in pixels]


LINES: list[dict[str, Any]] = [
    {"step": 0, "health/std": 0.6, "health/rank": 40.0, "health/dead": 0.0},
    {"step": 10, "epoch": 0, "loss": 5.9, "contrast/std": 0.7, "lr": 1e-3, "seconds": 2.0, "samples_per_second": 900.0},
    {
        "step": 20,
        "epoch": 0,
        "loss": 5.25,
        "contrast/std": 0.65,
        "lr": 7e-4,
        "seconds": 4,
        "samples_per_second": 1450.5,
    },
    {"step": 20, "health/std": 0.02, "health/rank": 17.5, "health/dead": 0.25},
    {
        "step": 30,
        "epoch": 1,
        "loss": 5.5,
        "contrast/std": 0.68,
        "lr": 2.5e-7,
        "seconds": 1.5,
        "samples_per_second": 1200,
    },
    {"step": 30, "health/std": 0.01, "health/rank": 9.25, "health/dead": 0.5},
]


def made(path: Path, lines: list[dict[str, Any]] = LINES, quarantine: Any = (), **config: Any) -> Path:
    """A run's folder as the loop leaves it, but for the encoder."""
    path.mkdir(parents=True)
    training = {"seed": 0, "batch_size": 32, "health_samples": 256, "lr": 1e-3, **config.pop("training", {})}
    method = {"name": "simclr", "terms": [{"name": "contrast", "temperature": 0.1}]}
    given = {"domain": "tabular", "data": "a.csv", "encoder": {"name": "mlp"}, "method": method, "training": training}
    (path / "config.yaml").write_text(yaml.safe_dump({**given, **config}))
    (path / "facts.json").write_text(json.dumps({"samples": 1000, "facts": {}}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if quarantine:
        (path / "quarantine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in quarantine))
    return path
