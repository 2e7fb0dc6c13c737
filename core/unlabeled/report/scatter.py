"""Samples in the plane as inline SVG, in the colours of their labels, with what a pointer shows of each."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from unlabeled.pictures import Picture, png, small
from unlabeled.report.charts import BOTTOM, LEFT, RIGHT, TOP, Axis, frame, number
from unlabeled.report.labels import NONE, OTHER, Labels, ramp
from unlabeled.report.map import Layout, Map
from unlabeled.report.markup import node

SIDES = (64, 48, 32, 24, 16)  # pixels of small pictures, the first that fits
MOST_BYTES = 2_200_000  # of all pictures of a page
MOST_FIELDS = 8
SIDE, FLATTEST = 400.0, 0.5  # of a map: its width in pixels, and its least height as a share of that


def encoded(pictures: Sequence[Picture] | None, count: int, room: int) -> list[str | None]:
    """PNG in base64 of n pictures, as large as fits into so many bytes; where the smallest do not, of some of them."""
    if pictures is None:
        return [None] * count
    made: list[str] = []
    for side in SIDES:
        made = [base64.b64encode(png(small(one, side))).decode() for one in pictures]
        if sum(map(len, made)) <= room:
            return list(made)
    each = max(1, -(-sum(map(len, made)) // max(room, 1)))
    return [one if place % each == 0 else None for place, one in enumerate(made)]


def scatter(found: Map, layout: Layout, pictures: Sequence[str | None] | None, numbered: bool) -> Element:
    """Samples at one scale in both directions; those with neighbours are numbered on request.

    Args:
        pictures: of the samples, for the pointer; None: another plane of the same map has them.
    """
    across, up = ([point[axis] for point in layout.points] for axis in (0, 1))
    middle = [(min(values) + max(values)) / 2 for values in (across, up)]
    spans = [1.04 * (max(values) - min(values)) for values in (across, up)]
    wide = max(spans)
    high = max(spans[1], FLATTEST * wide)
    low = TOP + (SIDE - RIGHT - LEFT) * high / wide
    x = Axis(middle[0] - wide / 2, middle[0] + wide / 2, LEFT, SIDE - RIGHT)
    y = Axis(middle[1] - high / 2, middle[1] + high / 2, low, TOP)
    svg = frame(x, y, *layout.axes, SIDE, low + BOTTOM)
    svg.set("class", "samples")
    for place, (name, (px, py)) in enumerate(zip(found.names, layout.points, strict=True)):
        colour, style = _colour(found.labels, place)
        dot = node("circle", node("title", name), cx=f"{x(px):.2f}", cy=f"{y(py):.2f}", r=3, class_=colour, **style)
        if pictures is not None:
            dot.set("data-text", "\n".join(about(found, place)))
            if pictures[place]:
                dot.set("data-picture", str(pictures[place]))
        svg.append(dot)
    for place, (query, _) in enumerate(found.near if numbered else (), start=1):
        px, py = x(layout.points[query][0]), y(layout.points[query][1])
        svg.append(
            node("circle", node("title", found.names[query]), cx=f"{px:.2f}", cy=f"{py:.2f}", r=8, class_="query")
        )
        svg.append(node("text", str(place), x=f"{px:.2f}", y=f"{py + 3.5:.2f}", class_="number"))
    return svg


def about(found: Map, place: int) -> list[str]:
    """Lines on a sample: its name, its label, what the reader describes."""
    lines = [_line(found.names[place])]
    if found.labels:
        lines.append(_line(f"{found.labels.name}: {found.labels.texts[place] or 'none'}"))
    fields = found.fields[place] if found.fields else {}
    return lines + [_line(f"{name}: {text}") for name, text in list(fields.items())[:MOST_FIELDS]]


def _line(text: str) -> str:
    return " ".join(text.split("\n"))


def _colour(labels: Labels | None, place: int) -> tuple[str, dict[str, str]]:
    """The class of a dot, and its own style where that is no class's."""
    if labels is None:
        return "dot", {}
    if labels.values is not None:
        shade = labels.shade(place)
        return ("dot labelled", {"style": f"fill: {shade}"}) if shade else ("dot none", {})
    return "dot " + _key(labels.colour(place)), {}


def _key(colour: int) -> str:
    return {OTHER: "other", NONE: "none"}.get(colour, f"labelled k{colour}")


def legend(found: Map) -> Element | None:
    """What the colours mean, with how many samples have each."""
    labels = found.labels
    if labels is None:
        return None
    if labels.values is not None:
        return _ramp_legend(labels)
    colours = [labels.colour(place) for place in range(len(found.names))]
    items = []
    for colour, name in [*enumerate(labels.classes), (OTHER, "other classes"), (NONE, "no label")]:
        count = colours.count(colour)
        if count or colour >= 0:
            key = node("span", class_=f"key {_key(colour)}", aria_hidden="true")
            items.append(node("li", key, f" {name} ({count:,})", data_class=_key(colour).split()[-1]))
    return node("ul", *items, class_="legend")


def _ramp_legend(labels: Labels) -> Element:
    low, high = labels.ends
    colours = ", ".join(ramp(share / 10) for share in range(11))
    bar = node("span", class_="ramp", style=f"background: linear-gradient(90deg, {colours})", aria_hidden="true")
    known = sum(value == value for value in labels.values or ())
    ends = node("li", f"{labels.name}: up to {number(low)} ", bar, f" {number(high)} and more ({known:,})")
    without = len(labels.texts) - known
    none = (
        node("li", node("span", class_="key none"), f" no label ({without:,})", data_class="none") if without else None
    )
    return node("ul", ends, none, class_="legend")
