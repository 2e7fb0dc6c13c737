"""The model card of a Hugging Face folder: what was trained on what by which method, and how well it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from unlabeled.exporting.job import Job, base_names, is_place, placeless
from unlabeled.saved import HUB

CARD = """\
---
library_name: unlabeled
pipeline_tag: feature-extraction
tags:
{tags}
---

# {title}

An encoder that learned from unlabelled data, by [unlabeled](https://pypi.org/project/unlabeled/) {version}.

```python
import unlabeled
encoder = unlabeled.load("{place}")  # a torch module: encoder(encoder.tokenize(batch)).instances
```

`pip install "unlabeled[{domain}]"` installs what this needs.
`unlabeled {domain} embed {place} DATA -o FILE.parquet` makes a row of {width} numbers for every sample of DATA.

## Data

{data}

## Method

{method}

## Results

{results}
"""
HEAD = ("features", "probe", "labels", "metric", "mean ± deviation", "95 % interval")


def card(job: Job) -> str:
    """README.md: front matter and text, with nothing of this machine and no sample's name."""
    saved, source = job.saved, _data_name(job)
    by = f" by {saved.method}" if saved.method else ""
    return CARD.format(
        tags="\n".join(f"- {tag}" for tag in _tags(job)),
        title=f"{job.encoder_name} of domain {saved.domain}{by}" + (f", on {source}" if source else ""),
        version=job.description["unlabeled"],
        place=HUB + job.push if job.push else "PATH/TO/THIS/FOLDER",
        domain=saved.domain,
        width=job.encoder.width,
        data=_table(("", ""), _about_data(job, source)),
        method=_table(("", ""), _about_method(job)),
        results="\n\n".join(_results(job)) or "Not evaluated yet.",
    )


def _tags(job: Job) -> list[str]:
    plain = (re.sub(r"[^\w.-]+", "-", tag) for tag in (job.saved.domain, job.saved.method) if tag)
    return ["unlabeled", "self-supervised-learning", *plain]


def _data_name(job: Job) -> str:
    """The data's own name, without the folders that it lies in."""
    return base_names(str(job.config.get("data") or ""))


def _about_data(job: Job, source: str) -> Iterator[tuple[str, str]]:
    """What is known of the data."""
    known: Any = job.description.get("samples") or {}
    reader = job.saved.reader
    yield "data", source or "not recorded"
    yield "samples trained on", f"{known['count']:,}" if "count" in known else "not recorded"
    yield "reader", ", ".join([reader.name or "the domain's first", *_options(reader.options)])
    if job.saved.labels:
        yield "labels that the method was told", base_names(job.saved.labels)


def _about_method(job: Job) -> Iterator[tuple[str, str]]:
    """How the encoder was trained."""
    saved, training = job.saved, job.config.get("training") or {}
    yield "method", saved.method or "not recorded"
    terms = (job.config.get("method") or {}).get("terms") or []
    if terms:
        yield "terms", ", ".join(str(term["name"] if isinstance(term, Mapping) else term) for term in terms)
    weights = sum(weight.numel() for weight in job.encoder.parameters())
    yield "encoder", ", ".join([job.encoder_name, *_options(saved.encoder.options)])
    yield "weights", f"{weights:,}"
    yield "width of an embedding", str(job.encoder.width)
    yield "view", ", ".join([saved.view.name or "the domain's first", *_options(saved.view.options)])
    yield "steps", f"{saved.step:,}"
    for name in ("batch_size", "optimizer", "lr", "seed"):
        if name in training:
            yield name.replace("_", " "), str(training[name])
    if job.config.get("init"):
        yield "started from", base_names(str(job.config["init"]))


def _options(options: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in options.items() if value not in (None, [], {}) and not is_place(value)]


def _results(job: Job) -> Iterator[str]:
    """A heading and a table for each evaluation in the run's folder."""
    for path in sorted((job.home / "results").glob("*.json")) if job.home else []:
        try:
            yield _result(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError):
            yield f"{path.name} cannot be read, and is left out."


def _result(found: Mapping[str, Any]) -> str:
    label = f" of {base_names(found['label'])}" if found["label"] else ""
    about = [placeless(found["split"])] if found.get("split") else []
    about.append(f"{found['train_rows']:,} rows to fit on and {found['test_rows']:,} to test on")
    about.append(
        f"data {base_names(found['train'])}" + (f", tested on {base_names(found['test'])}" if found["test"] else "")
    )
    if len(found.get("runs") or ()) > 1:
        about.append(f"mean over {len(found['runs'])} runs, of which this is one")
    if found.get("majority") is not None:
        about.append(f"always saying the commonest class has an accuracy of {found['majority']:.4f}")
    lines = [f"### {found['protocol']}{label}", "; ".join(about) + ".", _table(HEAD, map(_row, found["rows"]))]
    return "\n\n".join([*lines, *map(_caveat, found.get("warnings") or ())])


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    spread, interval = row.get("spread"), row.get("interval")
    labels = row["shots"] + (f" ({row['n']:,})" if row.get("n") else "")
    number = f"{row['mean']:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
    within = f"{interval[0]:.4f} … {interval[1]:.4f}" if interval else ""
    return placeless(row["features"]), row["probe"], labels, row["metric"], number, within


def _caveat(warning: str) -> str:
    """A warning without the sample and the run that it names."""
    many = re.match(r"[\d,]+ of [\d,]+ test samples", warning)
    if many and "pre-trained on" in warning:
        return f"{many[0]} were among those that the encoder was pre-trained on."
    if many and "are the same as" in warning:
        return f"{many[0]} are the same as samples that are fitted on."
    if many and "fitted on" in warning:
        return f"{many[0]} have the names of samples that are fitted on."
    return "`evaluate` warns of this split."


def _table(head: tuple[str, ...], rows: Any) -> str:
    """Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
