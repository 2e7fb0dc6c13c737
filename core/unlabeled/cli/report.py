"""`unlabeled report`: one page about a run, or several side by side."""

from __future__ import annotations

from unlabeled.cli.flags import Parser, normalise


def run(arguments: list[str]) -> int:
    """Write the page and say where it is."""
    parser = Parser("report", "Write one page about a run, or several side by side: curves, health, a map.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, finished or not")
    parser.add_argument("-o", "--output", help="the file (default: report.html, in the run's folder if it is one run)")
    parser.add_argument("--no_map", action="store_true", help="do not embed samples, so that no data are read")
    flags = parser.read(normalise(arguments))
    from unlabeled.report.write import report

    print(f"the report is in {report(flags.runs, flags.output, maps=not flags.no_map)}")
    return 0
