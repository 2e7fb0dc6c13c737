"""Writes the page: of finished runs by command, of a run in progress at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from unlabeled.errors import UserError, choose
from unlabeled.files import write_text
from unlabeled.report.charts import COLOURS, DASHES
from unlabeled.report.labels import Unanswered
from unlabeled.report.map import Map, MapName, draw, umap_or_say
from unlabeled.report.page import page
from unlabeled.report.runs import Shown, read
from unlabeled.report.samples import Source
from unlabeled.saved import describe
from unlabeled.training.folder import RunFolder

__all__ = ["report"]

MOST_RUNS = COLOURS * len(DASHES)
LAYOUTS = ("pca", "umap", "both")
UNTOLD = "the report was written without one"


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    maps: bool = True,
    label: str | None = None,
    data: str | None = None,
    layout: MapName = "pca",
) -> Path:
    """Write a page about runs and return where it is: by default in the run's folder, report.html for several.

    Args:
        runs: run folders, finished or not.
        out: the file to write.
        maps: embed the samples that a run looks at for its health, where its data can still be read.
        label: what the reader calls the label that maps are coloured by.
        data: show samples of these instead, up to 500 evenly spread.
        layout: pca, umap (which needs umap-learn), or both.

    Raises:
        UserError: a folder is no run's, there are more of them than curves can be told apart, a full disk; a label or
            data that are not there; no umap-learn.
    """
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs cannot be told apart on one page; give at most {MOST_RUNS}")
    choose("map", layout, dict.fromkeys(LAYOUTS, 1))
    if not maps and (label or data or layout != "pca"):
        raise UserError("a label, data and a kind of map are of the map; leave them out, or --no-map")
    if layout != "pca":
        umap_or_say()
    folders = [RunFolder(run) for run in runs]
    shown = [read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    found = [_map(run, partial(_opened, run, data), label, layout) if maps else UNTOLD for run in shown]
    path = Path(out) if out else folders[0].report if len(runs) == 1 else Path("report.html")
    write_text(path, page(shown, found))
    return path


def write_at_end(folder: RunFolder, source: Source, say: Callable[[str], None]) -> None:
    """Write report.html of a run that ends, which never fails because of it."""
    try:
        shown = read(folder, folder.path.name)
        write_text(folder.report, page([shown], [_map(shown, lambda: source)]))
    except Exception as error:
        say(f"warning: no {folder.report.name} was written: {_reason(error)}")


def _opened(run: Shown, data: str | None) -> Source:
    """Raises Unanswered where data that were asked for cannot be read."""
    describe(run.path)  # a run without an encoder has no map, whatever data
    try:
        return Source.of(run, data)
    except UserError as error:
        if not data:
            raise
        raise Unanswered(str(error)) from None


def _map(run: Shown, source: Callable[[], Source], label: str | None = None, layout: MapName = "pca") -> Map | str:
    training = run.config["training"]
    try:
        return draw(source(), int(training["health_samples"]), int(training["seed"]), label, layout)
    except Unanswered:
        raise
    except Exception as error:  # whatever a reader, a decoder or an encoder raises: the rest of the page stands
        return _reason(error)


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Names of folders, or their paths where two have one name."""
    names = [folder.path.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
