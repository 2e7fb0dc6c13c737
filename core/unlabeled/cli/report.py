"""`unlabeled report`: one page about a run, or several side by side."""

from __future__ import annotations

from unlabeled.cli.flags import Parser, normalise


def run(arguments: list[str]) -> int:
    """Write the page and say where it is."""
    parser = Parser("report", "Write one page about a run, or several side by side: results, curves, health, a map.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, finished or not")
    parser.add_argument("-o", "--output", help="the file (default: report.html, in the run's folder if it is one run)")
    parser.add_argument("--no_map", action="store_true", help="do not embed samples, so that no data are read")
    parser.add_argument("--label", metavar="L", help="colour samples by this label, as `evaluate --label` takes it")
    parser.add_argument("--data", help="samples to show (default: those of the training data that were held out)")
    parser.add_argument("--map", default="pca", help="pca, umap (needs unlabeled[report]) or both")
    flags = parser.read(normalise(arguments))
    from unlabeled.report.write import report

    asked = {"label": flags.label, "data": flags.data, "layout": flags.map}
    print(f"the report is in {report(flags.runs, flags.output, maps=not flags.no_map, **asked)}")
    return 0
