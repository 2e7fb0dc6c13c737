"""Line charts as inline SVG: axes with units, few colours, nothing that needs a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from unlabeled.report.markup import node
from unlabeled.report.runs import Points

MOST_POINTS = 1000  # of a curve; more are thinned, extremes kept
MOST_HINTS = 200  # points of a curve that say their value under the mouse
COLOURS, DASHES = 6, ("", "6 3", "2 3")  # colours are of Okabe & Ito, told apart by colour-blind readers

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 22.0, 34.0


@dataclass(frozen=True)
class Curve:
    """One line of a chart: of which run, and its values."""

    run: str
    number: int  # of the run, which picks colour and dashes
    points: Points


@dataclass(frozen=True)
class Axis:
    """Values low … high to pixels start … stop."""

    low: float
    high: float
    start: float
    stop: float

    @staticmethod
    def over(values: Sequence[float], start: float, stop: float, zero: bool = False, tight: bool = False) -> Axis:
        """An axis that holds the values with a little room, or from 0 where that means something."""
        low, high = min(values), max(values)
        room = 0.0 if tight else 0.05 * (high - low)
        if high == low:
            room = abs(high) * 0.1 or 1.0
        base = 0.0 if zero and low >= 0 else low - room
        return Axis(base, high + room, start, stop)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside, a step of 1, 2 or 5 apart."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def chart(curves: Sequence[Curve], unit: str, *, zero: bool, steps: int, marks: Sequence[tuple[int, str]]) -> Element:
    """A chart over steps 0 … steps, with an upright line at each mark (step, sentence)."""
    x = Axis(0, max(steps, 1), LEFT, WIDTH - RIGHT)
    y = Axis.over([value for curve in curves for _, value in curve.points], HEIGHT - BOTTOM, TOP, zero)
    svg = frame(x, y, "step", unit, WIDTH, HEIGHT)
    for step, sentence in marks:
        at = f"{x(step):.2f}"
        svg.append(node("line", node("title", sentence), x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
    for curve in curves:
        places = [(x(step), y(value)) for step, value in thin(curve.points)]
        path = "M" + " L".join(f"{px:.2f},{py:.2f}" for px, py in places)
        if len(places) == 1:
            path += " h0.01"
            dot = node("title", f"{curve.run}, step {curve.points[0][0]:,}: {curve.points[0][1]:.6g}")
            ends = {"cx": f"{places[0][0]:.2f}", "cy": f"{places[0][1]:.2f}"}
            svg.append(node("circle", dot, **ends, r=3, class_="mean " + style(curve.number)))
        svg.append(node("path", node("title", curve.run), d=path, class_="curve " + style(curve.number)))
    for curve in [one for one in curves if len(one.points) <= MOST_HINTS]:
        for step, value in curve.points:
            hint = node("title", f"{curve.run}, step {step:,}: {value:.6g}")
            svg.append(node("circle", hint, cx=f"{x(step):.2f}", cy=f"{y(value):.2f}", r=4, class_="hint"))
    return svg


def swatch(number: int) -> Element:
    """The line of a run, for the legend."""
    line = node("path", d="M1,6 L27,6", class_="curve " + style(number))
    return node("svg", line, viewBox="0 0 28 12", width=28, height=12, class_="swatch", aria_hidden="true")


def style(number: int) -> str:
    """Colour, then dashes: the classes of run `number`."""
    return f"c{number % COLOURS} d{number // COLOURS % len(DASHES)}"


def thin(points: Points) -> Points:
    """At most MOST_POINTS, without losing a peak: the lowest and the highest of each stretch."""
    if len(points) <= MOST_POINTS:
        return points
    kept = [points[0]]
    stretch = math.ceil((len(points) - 2) / (MOST_POINTS // 2 - 1))
    for at in range(1, len(points) - 1, stretch):
        part = points[at : min(at + stretch, len(points) - 1)]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def frame(x: Axis, y: Axis, x_name: str, y_name: str, width: float, height: float, *, rows: bool = False) -> Element:
    """Two axes with their figures and names, and nothing in between; upright lines where there are rows for a y."""
    said = x_name if rows else f"{y_name} over {x_name}"
    svg = node("svg", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=said)
    for value in () if rows else y.ticks(4):
        at = f"{y(value):.2f}"
        svg.append(node("line", x1=x.start, x2=x.stop, y1=at, y2=at, class_="grid"))
        svg.append(node("text", number(value, 7), x=f"{x.start - 6:g}", y=at, dy="0.32em", class_="tick y"))
    for value in x.ticks(4 if rows else 5):
        if rows:
            at = f"{x(value):.2f}"
            svg.append(node("line", x1=at, x2=at, y1=y.start, y2=y.stop, class_="grid"))
        svg.append(node("text", number(value, 7), x=f"{x(value):.2f}", y=f"{y.start + 14:g}", class_="tick x"))
    svg.append(node("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, class_="axis"))
    svg.append(node("text", x_name, x=f"{x.stop:g}", y=f"{y.start + 28:g}", class_="name x"))
    if not rows:
        svg.append(node("text", y_name, x=4, y=12, class_="name y"))
    return svg


def number(value: float, digits: int = 4) -> str:
    """A figure with no more digits than it needs: 30,000 and 0.0002, not 3e+04 and 2e-04."""
    if value == 0 or 1e-4 <= abs(value) < 10**digits:
        return f"{value:,.{digits}g}"
    return f"{value:,.0f}" if 1 <= abs(value) < 1e9 else f"{value:.2g}"
