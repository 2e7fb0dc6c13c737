"""The page: one run in full, or several side by side."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import torch

from unlabeled.report.charts import COLOURS, DASHES, Curve, chart, number, scatter, swatch
from unlabeled.report.map import Map
from unlabeled.report.markup import document, node, table
from unlabeled.report.runs import Shown

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
}

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --soft: #5f666e; --line: #e3e5e8; --warn: #b3261e;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5588f; --c4: #b07d00; --c5: #3d9bd1; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --text: #e4e6e9; --soft: #9aa1a9; --line: #2e3238;
  --warn: #ff8a80; --c0: #56b4e9; --c1: #ff8f45; --c2: #2ec79c; --c3: #e39cc6; --c4: #f0b73a; --c5: #9ad4f5; } }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption span { color: var(--soft); }
.warn { border-left: 4px solid var(--warn); padding: .2rem .8rem; margin: .8rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1.4rem 1.6rem; }
.sections { columns: 21rem; column-gap: 1.6rem; } .sections > div { break-inside: avoid; margin-bottom: 1.2rem; }
.map { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 1.6rem; align-items: start; }
figure { margin: 0; } figcaption { display: flex; justify-content: space-between; gap: 1rem; font-weight: 600; }
figcaption span { font-weight: 400; }
svg { display: block; width: 100%; height: auto; } .swatch { display: inline; width: 28px; vertical-align: middle; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .6rem 0 1rem; padding: 0; list-style: none; }
text { fill: var(--text); font: 11px system-ui, sans-serif; } .tick, .name { fill: var(--soft); }
.tick.y, .name.x { text-anchor: end; } .tick.x, .number { text-anchor: middle; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .mark { stroke: var(--warn); stroke-dasharray: 2 2; }
.curve { fill: none; stroke: var(--c0); stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.hint { fill: transparent; } .hint:hover { fill: var(--soft); } .dot { fill: var(--c0); fill-opacity: .5; }
.query { fill: var(--back); stroke: var(--c1); stroke-width: 1.5; } .number { font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; } dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .85rem; } .plain td { white-space: nowrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; white-space: nowrap; } td { overflow-wrap: anywhere; }
tbody td:first-child { white-space: nowrap; } footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
""" + "".join(
    [f".c{n} {{ stroke: var(--c{n}); }}\n" for n in range(COLOURS)]
    + [f".d{n} {{ stroke-dasharray: {dash}; }}\n" for n, dash in enumerate(DASHES) if dash]
)


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
        *_curves(runs),
        *_maps(runs, maps),
        *_quarantine(runs),
        *_configuration(runs),
        node("footer", _machine()),
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


def _maps(runs: Sequence[Shown], maps: Sequence[Map | str]) -> list[Element | None]:
    parts: list[Element | None] = [node("h2", "Map of the embedding")]
    boxes = []
    for run, found in zip(runs, maps, strict=True):
        name = node("figcaption", run.name) if len(runs) > 1 else None
        if isinstance(found, str):
            boxes.append(node("figure", name, node("p", f"No map: {found}.", class_="soft")))
            continue
        boxes.append(node("figure", name, scatter(found, numbered=len(runs) == 1)))
        if len(runs) == 1:
            said = f"{len(found.names)} samples by principal component analysis; names show under the mouse."
            parts.append(node("p", said, class_="soft"))
            boxes.append(_neighbours(found))
    return [*parts, node("div", *boxes, class_="map")]


def _neighbours(found: Map) -> Element:
    start = os.path.commonprefix(list(found.names))  # noqa: RUF071  # by letters: not all names are paths
    begin = re.match(r"(.*[/:\\])?", start, re.DOTALL)
    shared = begin[0] if begin else ""
    names = [name[len(shared) :] for name in found.names]
    rows: list[list[str | Element]] = []
    for place, (query, others) in enumerate(found.near, start=1):
        text = ", ".join(f"{names[other]} ({cosine:.2f})" for other, cosine in others)
        rows.append([str(place), names[query], text])
    head = ["", "sample", "nearest, with the cosine of centred embeddings"]
    said = node("p", f"All names begin with {shared}", class_="soft") if shared else None
    return node("div", node("h3", "Nearest neighbours"), said, table(head, rows))


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
