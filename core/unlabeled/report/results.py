"""Results of evaluations beside their baselines: of one run, or of several that were asked the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element

import numpy as np

from unlabeled.evaluation.kept import Kept
from unlabeled.evaluation.results import COMMONEST, Result, Row
from unlabeled.evaluation.shots import ALL
from unlabeled.report.charts import COLOURS, Axis, frame, swatch
from unlabeled.report.markup import node, table
from unlabeled.report.runs import Shown

TRAINED = "trained"  # what the features of runs begin with; all others are baselines
LETTERS = 22  # of a name at a chart

Column = tuple[str, str]  # probe and metric


@dataclass(frozen=True)
class Cell:
    """A mean, how it varies over runs and seeds, and its 95 % interval over test samples."""

    mean: float
    spread: float | None = None
    interval: tuple[float, float] | None = None

    @staticmethod
    def of(row: Row) -> Cell:
        """All of a row."""
        return Cell(row.mean, row.spread if len(row.values) > 1 else None, row.interval)


@dataclass(frozen=True)
class Line:
    """A line of a table: features of a run or a baseline, by one part of the labels."""

    name: str
    shots: str
    n: int | None
    run: int | None = None  # its number on the page; None: a baseline, or the page's only run
    base: bool = False
    cells: dict[Column, Cell] = field(default_factory=dict)


def results(runs: Sequence[Shown]) -> list[Element | None]:
    """The section of the page: a table and charts for each question."""
    parts: list[Element | None] = [node("h2", "Results")]
    broken = [node("p", sentence) for run in runs for sentence in run.broken_results]
    if broken:
        parts.append(node("div", *broken, class_="warn", role="alert"))
    groups = _questions(runs)
    if not groups:
        command = f"unlabeled {runs[0].option('domain')} evaluate RUN DATA --label L"
        parts.append(node("p", "None yet: ", node("code", command), " keeps them in the run's folder.", class_="soft"))
    return [*parts, *(_question(runs, answers) for answers in groups)]


def _questions(runs: Sequence[Shown]) -> list[dict[int, Kept]]:
    """Answers to each question, by the number of the run; of a run alone rather than with others."""
    groups: dict[str, dict[int, Kept]] = {}
    for number, run in enumerate(runs):
        for kept in sorted(run.results, key=lambda one: len(one.result.runs), reverse=len(runs) > 1):
            result = kept.result
            about = result.asked or {"of": (result.protocol, result.label, result.train, result.test, result.split)}
            name = json.dumps(about, sort_keys=True) + ("" if len(runs) > 1 else kept.path.name)
            groups.setdefault(name, {})[number] = kept
    return list(groups.values())


def _question(runs: Sequence[Shown], answers: Mapping[int, Kept]) -> Element:
    first = next(iter(answers.values())).result
    several = len(runs) > 1
    lines = _compared(runs, answers) if several else _lines(first)
    warned = [
        node("p", f"{runs[number].name}: " if several else "", sentence)
        for number, kept in answers.items()
        for sentence in kept.result.warnings
    ]
    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    charts = [_chart(lines, column, first.majority) for column in columns]
    return node(
        "section",
        node("h3", f"{first.label or 'no label'} by {first.protocol}"),
        node("p", _about(first), class_="soft"),
        _missing(runs, answers),
        node("div", *warned, class_="warn", role="alert") if warned else None,
        _table(lines, columns, first.majority),
        node("div", *charts, class_="charts"),
        class_="result",
    )


def _about(result: Result) -> str:
    """What was asked."""
    tested = f"tested on {result.test_rows:,} of {result.test}" if result.test else f"{result.test_rows:,} tested on"
    shots = list(dict.fromkeys(row.shots for row in result.rows))
    ood = result.asked.get("ood")
    parts = [
        f"Fitted on {result.train_rows:,} samples of {result.train}",
        tested,
        f"split: {result.split}",
        f"labels: {', '.join(shots)}" if shots != [ALL] else "",
        f"to be told from {ood}" if ood else "",
        f"mean over {len(result.runs)} runs: {', '.join(result.runs)}" if len(result.runs) > 1 else "",
        f"code {result.commit[:12]}{'-dirty' * result.commit.endswith('-dirty')}" if result.commit else "",
    ]
    bars = " Mean ± deviation over runs and seeds; beneath it and as a bar the 95 % interval over test samples."
    return "; ".join(filter(None, parts)) + "." + bars


def _missing(runs: Sequence[Shown], answers: Mapping[int, Kept]) -> Element | None:
    without = [run.name for number, run in enumerate(runs) if number not in answers]
    return node("p", f"Not asked of {', '.join(without)}.", class_="soft") if without else None


def _lines(result: Result) -> list[Line]:
    """A line for each kind of features and part of the labels, the runs' own first."""
    lines: dict[tuple[str, str], Line] = {}
    for row in result.rows:
        base = not row.features.startswith(TRAINED)
        line = lines.setdefault((row.features, row.shots), Line(row.features, row.shots, row.n, base=base))
        line.cells[row.probe, row.metric] = Cell.of(row)
    return sorted(lines.values(), key=lambda line: line.base)


def _compared(runs: Sequence[Shown], answers: Mapping[int, Kept]) -> list[Line]:
    """A line a run, then the baselines: once where all runs have the same, else one of each run."""
    mine, bases = [], dict[tuple[str, str], list[Line]]()
    for number, kept in answers.items():
        alone = _own(kept.result, kept.place)
        for line in _lines(alone):
            if not line.base:
                mine.append(replace(line, name=runs[number].name, run=number))
            else:
                bases.setdefault((line.name, line.shots), []).append(replace(line, run=number))
    for found in bases.values():
        if all(one.cells == found[0].cells for one in found):
            mine.append(replace(found[0], run=None))
        else:
            mine += [replace(one, name=f"{one.name}, {runs[one.run or 0].name}", run=None) for one in found]
    return mine


def _own(result: Result, place: int) -> Result:
    """What a run has of a result over several: its values, which stand run after run, without the joint interval."""
    if len(result.runs) < 2:
        return result
    rows = []
    for row in result.rows:
        each, rest = divmod(len(row.values), len(result.runs))
        if row.features.startswith(TRAINED) and each and not rest:
            row = replace(row, values=row.values[place * each : (place + 1) * each], interval=None)
        rows.append(row)
    return replace(result, rows=tuple(rows))


def _table(lines: Sequence[Line], columns: Sequence[Column], majority: float | None) -> Element:
    parts = len({line.shots for line in lines}) > 1
    head = ["features", *(["labels"] if parts else []), *(" ".join(column) for column in columns)]
    rows: list[list[str | Element]] = []
    for line in lines:
        name = node("span", line.name) if line.run is None else node("span", swatch(line.run), f" {line.name}")
        labels = [f"{line.shots}{'' if line.n is None else f' ({line.n:,})'}"] if parts else []
        cells = [_cell(line.cells[column]) if column in line.cells else "" for column in columns]
        rows.append([node("span", name, class_="base" if line.base else "own"), *labels, *cells])
    if majority is not None and any(metric == "accuracy" for _, metric in columns):
        same = [f"{majority:.4f}" if metric == "accuracy" else "" for _, metric in columns]
        rows.append([node("span", COMMONEST, class_="base"), *([""] if parts else []), *same])
    return table(head, rows, class_="figures")


def _cell(cell: Cell) -> Element:
    spread = "" if cell.spread is None else f" ± {cell.spread:.4f}"
    interval = node("small", "[{:.3f}, {:.3f}]".format(*cell.interval)) if cell.interval else None
    return node("div", f"{cell.mean:.4f}{spread}", interval, class_="num")


def _chart(lines: Sequence[Line], column: Column, majority: float | None) -> Element:
    """A dot for each mean, a bar for its interval, and an upright line for the commonest class."""
    lines = [line for line in lines if column in line.cells and np.isfinite(line.cells[column].mean)]
    caption = node("figcaption", " ".join(column))
    if not lines:
        return node("figure", caption, node("p", "not a number", class_="soft"))
    cells = [line.cells[column] for line in lines]
    values = [value for cell in cells for value in (cell.mean, *(cell.interval or ()))]
    floor = majority if column[1] == "accuracy" else None
    room = max(max(values) - min(values), 0.02)
    if floor is not None and not min(values) - room <= floor <= max(values) + room:
        floor = None  # it would press all else together, and stands in the table
    width, left, step, top = 360.0, 132.0, 20.0, 8.0
    height = top + step * len(lines) + 34
    x = Axis.over([*values, *([] if floor is None else [floor])], left, width - 12)
    parts = len({line.shots for line in lines}) > 1
    svg = frame(x, Axis(0, 1, height - 34, top), column[1], "", width, height, rows=True)
    if floor is not None:
        at = f"{x(floor):.2f}"
        title = node("title", f"{COMMONEST}: {floor:.4f}")
        svg.append(node("line", title, x1=at, x2=at, y1=top, y2=height - 34, class_="line"))
    for place, (line, cell) in enumerate(zip(lines, cells, strict=True)):
        y = top + step * (place + 0.5)
        name = f"{line.name}, {line.shots}" if parts else line.name
        colour = f" c{(line.run or 0) % COLOURS}" if not line.base else ""
        short = name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
        said = f"{name}: {cell.mean:.4f}"
        if cell.interval:
            low, high = cell.interval
            said += f" [{low:.4f}, {high:.4f}]"
            ends = {"x1": f"{x(low):.2f}", "x2": f"{x(high):.2f}", "y1": y, "y2": y}
            svg.append(node("line", node("title", said), **ends, class_="band" + colour))
        svg.append(node("circle", node("title", said), cx=f"{x(cell.mean):.2f}", cy=y, r=4, class_="mean" + colour))
        svg.append(node("text", node("title", name), short, x=left - 8, y=y, dy="0.32em", class_="tick y"))
    return node("figure", caption, svg)
