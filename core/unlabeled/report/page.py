"""The page: one run in full, or several side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import torch

from unlabeled.report.charts import Curve, chart, number, swatch
from unlabeled.report.gallery import mapped
from unlabeled.report.map import Map
from unlabeled.report.markup import document, node, table
from unlabeled.report.results import results
from unlabeled.report.runs import Shown
from unlabeled.report.style import SCRIPT, STYLE

MOST_QUARANTINED = 50  # lines shown; the rest is in quarantine.jsonl


class Metric(NamedTuple):
    """How a metric of metrics.jsonl is shown."""

    title: str
    unit: str  # what stands at the axis
    zero: bool = True  # whether the axis starts at 0


METRICS = {
    "loss": Metric("Loss", "loss, as the method sums it", False),
    "lr": Metric("Learning rate", "rate"),
    "samples_per_second": Metric("Throughput", "samples a second"),
    "skipped": Metric("Steps skipped for a gradient that was not finite", "steps since the line before"),
    "health/std": Metric("Spread of directions", "√width × mean deviation, near 1 at best"),
    "health/rank": Metric("Rank (RankMe)", "directions that embeddings vary along"),
    "health/dead": Metric("Dead dimensions", "share of dimensions that hardly vary"),
    "health/alignment": Metric("Alignment", "squared distance of two views, from 0 to 4"),
    "health/uniformity": Metric("Uniformity", "ln of mean closeness, 0 where all samples are one", False),
    "health/knn accuracy": Metric("Neighbours' vote", "accuracy on labelled samples"),
}


def page(runs: Sequence[Shown], maps: Sequence[Map | str]) -> str:
    """The HTML of one run or several; a map that is a sentence says why there is none."""
    one = runs[0] if len(runs) == 1 else None
    title = f"{one.option('method')} on {one.option('encoder')}" if one else f"{len(runs)} runs side by side"
    warnings = [node("p", _of(run, len(runs)), sentence) for run in runs for _, sentence in run.alarms]
    return document(
        f"{one.name}: {title}" if one else title,
        STYLE,
        node("h1", title),
        node("p", str(one.path), class_="soft") if one else None,
        node("div", *warnings, class_="warn", role="alert") if warnings else None,
        *_summary(runs),
        *results(runs),
        *_curves(runs),
        *mapped(runs, maps),
        *_quarantine(runs),
        *_configuration(runs),
        node("footer", _machine()),
        node("script", SCRIPT) if any(isinstance(found, Map) for found in maps) else None,
    )


# ---- parts of the page


def _summary(runs: Sequence[Shown]) -> list[Element | None]:
    """What is the same in all runs as a list, what differs as a table."""
    facts = [_facts(run) for run in runs]
    differ = [name for name in facts[0] if len({fact[name] for fact in facts}) > 1]
    same = {name: value for name, value in facts[0].items() if name not in differ and value}
    listed = [node("div", node("dt", name), node("dd", value)) for name, value in same.items()]
    rows: list[list[str | Element]] = []
    for place, (run, fact) in enumerate(zip(runs, facts, strict=True)):
        rows.append([node("span", swatch(place), f" {run.name}"), *(fact[name] for name in differ)])
    compared = table(["run", *differ], rows, class_="plain") if len(runs) > 1 else None
    return [node("dl", *listed), compared]


def _facts(run: Shown) -> dict[str, str]:
    rates = sorted(value for _, value in run.curves.get("samples_per_second", []))
    return {
        "domain": run.option("domain"),
        "method": run.option("method"),
        "encoder": run.option("encoder"),
        "data": run.option("data") + (f" ({run.samples:,} samples)" if run.samples is not None else ""),
        "seed": run.option("training", "seed"),
        "steps": f"{run.step:,}" + (f" in {run.epochs} epochs" if run.epochs else ""),
        "batch": run.option("training", "batch_size"),
        "time": _time(run.seconds),
        "samples a second": f"{rates[len(rates) // 2]:,.0f}" if rates else "",
        "loss at the end": _last(run, "loss"),
        "rank at the end": _last(run, "health/rank"),
        "spread at the end": _last(run, "health/std"),
        "broken samples": f"{len(run.quarantine):,}",
    }


def _curves(runs: Sequence[Shown]) -> list[Element | None]:
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    if not names:
        return [node("h2", "Curves"), node("p", "Nothing has been logged yet.")]
    legend = None
    if len(runs) > 1:
        items = [node("li", swatch(place), f" {run.name}") for place, run in enumerate(runs)]
        legend = node("ul", *items, class_="legend")
    health = [name for name in names if name.startswith("health/")]
    leading = [name for name in METRICS if name in names and name not in health]
    rest = [name for name in names if name not in leading and name not in health]
    parts = [node("h2", "Training"), legend, node("div", *_figures(runs, leading + rest), class_="charts")]
    if health:
        said = "Of the samples that are looked at for health, held out from training where they can be. "
        said += (
            "A collapse shows as a spread that falls towards 0, or a rank towards 1; step 0 is the untrained encoder."
        )
        parts += [node("h2", "Health of the embeddings"), node("p", said, class_="soft")]
        parts.append(node("div", *_figures(runs, health), class_="charts"))
    return parts


def _figures(runs: Sequence[Shown], names: Sequence[str]) -> list[Element]:
    """A chart for each metric; losses of different methods do not compare, so each method has one of its own."""
    figures = []
    for name in names:
        metric = METRICS.get(name, Metric(name, "spread of projections" if name.endswith("/std") else "value", False))
        having = [place for place, run in enumerate(runs) if name in run.curves]
        methods = dict.fromkeys(runs[place].option("method") for place in having)
        if name != "loss" or len(methods) == 1:
            figures.append(_figure(runs, name, metric, having))
            continue
        for method in methods:
            of_it = [place for place in having if runs[place].option("method") == method]
            figures.append(_figure(runs, name, metric._replace(title=f"{metric.title}, {method}"), of_it))
    return figures


def _figure(runs: Sequence[Shown], name: str, metric: Metric, having: Sequence[int]) -> Element:
    curves = [Curve(runs[place].name, place, runs[place].curves[name]) for place in having]
    marks = [(step, _of(runs[place], len(runs)) + said) for place in having for step, said in runs[place].alarms]
    drawn = chart(curves, metric.unit, zero=metric.zero, steps=max(run.step for run in runs), marks=marks)
    ends = [curves[0].points[0][1], curves[0].points[-1][1]]
    span = " → ".join(map(number, ends)) if len(runs) == 1 else ""
    return node("figure", node("figcaption", metric.title, node("span", span)), drawn)


def _quarantine(runs: Sequence[Shown]) -> list[Element | None]:
    rows: list[list[str | Element]] = []
    left = 0
    for run in runs:
        left += max(0, len(run.quarantine) - MOST_QUARANTINED)
        for line in run.quarantine[:MOST_QUARANTINED]:
            item: list[str | Element] = [str(line.get("name", "")), str(line.get("reason", ""))]
            rows.append([run.name, *item] if len(runs) > 1 else item)
    if not rows:
        return [node("h2", "Broken samples"), node("p", "None was met.")]
    head = [*(["run"] if len(runs) > 1 else []), "sample", "reason"]
    more = node("p", f"and {left:,} more in quarantine.jsonl", class_="soft") if left else None
    return [node("h2", "Broken samples"), table(head, rows), more]


def _configuration(runs: Sequence[Shown]) -> list[Element | None]:
    flat = [flatten(run.config) for run in runs]
    if len(runs) == 1:
        sections: dict[str, list[list[str | Element]]] = {}
        for name, value in flat[0].items():
            section, _, rest = name.partition(".")
            sections.setdefault(section if rest else "run", []).append([rest or section, value])
        boxes = [node("div", node("h3", name), table([], rows)) for name, rows in sections.items()]
        return [node("h2", "Configuration"), node("div", *boxes, class_="sections")]
    names = list(dict.fromkeys(name for one in flat for name in one))
    differ = [name for name in names if len({one.get(name) for one in flat}) > 1]
    rows = [[name, *(one.get(name, "") for one in flat)] for name in differ]
    said = "What differs; the rest is the same in all of them." if differ else "The same in all of them."
    listed = table(["option", *(run.name for run in runs)], rows) if rows else None  # type: ignore[arg-type]
    return [node("h2", "Configuration"), node("p", said, class_="soft"), listed]


# ---- small things


def flatten(value: Any, name: str = "") -> dict[str, str]:
    """Nested data as `a.b` -> text; lists of plain values stay together."""
    if isinstance(value, Mapping) and value:
        parts = [flatten(one, f"{name}.{key}" if name else str(key)) for key, one in value.items()]
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        parts = [flatten(one, f"{name}.{place}") for place, one in enumerate(value, start=1)]
    elif isinstance(value, list):
        return {name: ", ".join(map(str, value))}
    else:
        return {name: "none" if value is None else str(value)}
    return {key: text for part in parts for key, text in part.items()}


def _of(run: Shown, runs: int) -> str:
    return f"{run.name}: " if runs > 1 else ""


def _last(run: Shown, name: str) -> str:
    points = run.curves.get(name)
    return number(points[-1][1]) if points else ""


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _machine() -> str:
    parts = [f"{os.cpu_count()} processors ({platform.machine()})"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts += [f"torch {torch.__version__}", f"Python {platform.python_version()}", f"unlabeled {version('unlabeled')}"]
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return f"Written {now} on {', '.join(parts)}."
