"""Tables on a terminal, in a log and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unlabeled.evaluation.results import COMMONEST, TREES, Result, Row
from unlabeled.evaluation.shots import ALL

__all__ = ["print_rows"]

MOST_COLUMNS = 4

Cells = Sequence[dict[str, str]]


def print_rows(rows: Cells) -> None:
    """Rows with the same keys as a table: drawn on a terminal, plain text elsewhere."""
    if not rows:
        return
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in rows[0]:
            table.add_column(name)
        for row in rows:
            table.add_row(*row.values())
        Console().print(table, markup=False)
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in [{name: name for name in rows[0]}, *rows]:
        print("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def figure(row: Row) -> str:
    """mean ± deviation over seeds [95 % interval over test items]."""
    spread = f" ± {row.spread:.4f}" if len(row.values) > 1 else ""
    return f"{row.mean:.4f}{spread}" + (" [{:.3f}, {:.3f}]".format(*row.interval) if row.interval else "")


def result_rows(result: Result) -> list[dict[str, str]]:
    """A line for each part of the labels and kind of features, a column for each probe and metric.

    Where that is too wide, each probe has lines of its own.
    """
    rows = [row for row in result.rows if row.probe != TREES]
    wide = len({(row.probe, row.metric) for row in rows}) > MOST_COLUMNS
    columns = list(dict.fromkeys(_column(row, wide) for row in rows))
    parts = list(dict.fromkeys((row.shots, row.n) for row in rows))
    lines = []
    for shots, n in parts:
        labels = {} if parts == [(ALL, n)] else {"labels": shots, "n": f"{n:,}"}
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in rows:
            if row.shots == shots:
                cells.setdefault((row.features, row.probe if wide else ""), {})[_column(row, wide)] = figure(row)
        for (name, probe), found in cells.items():
            by = {"probe": probe} if wide else {}
            lines.append({"features": name, **by, **labels, **{one: found.get(one, "") for one in columns}})
    return lines


def _column(row: Row, wide: bool) -> str:
    return row.metric if wide else f"{row.probe} {row.metric}"


def print_result(result: Result) -> None:
    """An evaluation as a table, with what it was measured on."""
    if result.groups:
        how = f"tested on each of {len(result.groups)} groups in turn ({', '.join(result.groups[:10])})"
    else:
        how = f"tested on {result.test_rows:,} of {result.test or 'its rows held out'}"
    label = f"label {result.label}" if result.label else "no label"
    print(f"{label}: probes fitted on {_fitted(result)} of {result.train}, {how}; {result.seeds} seeds")
    print_rows(result_rows(result))
    if result.majority is not None and any(row.metric == "accuracy" for row in result.rows):
        print(f"{COMMONEST}: accuracy {result.majority:.4f}")
    for row in result.rows:
        if row.probe == TREES:
            of = "" if row.shots == ALL else f", {row.shots} of the labels"
            print(f"boosted trees on the raw columns{of}: {row.metric} {figure(row)}")
    chosen = {(row.features, row.shots): row.rates for row in result.rows if row.rates}
    for (name, shots), rates in chosen.items():
        of = "" if shots == ALL else f", {shots} of the labels"
        print(f"learning rates chosen on training rows: {name}{of}: {', '.join(f'{rate:g}' for rate in rates)}")
    for sentence in result.warnings:
        print(f"warning: {sentence}", file=sys.stderr)


def _fitted(result: Result) -> str:
    whole = all(row.shots == ALL for row in result.rows)
    return ("" if whole else "parts of ") + f"{result.train_rows:,} {'labelled ' if result.label else ''}rows"


def markdown(rows: Cells) -> str:
    """Rows with the same keys as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]) + "\n"
