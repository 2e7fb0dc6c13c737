"""Commands under `unlabeled graph`: the field's own evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unlabeled.cli.parser import CommandParser


def _parser(name: str, about: str) -> CommandParser:
    parser = CommandParser(f"unlabeled graph {name}", description=about)
    parser.add_argument("run", help="a run's folder; several (one a pre-training seed) with commas between")
    parser.add_argument("data", help="what the run's reader takes")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--json", help="also write the scores to this file")
    parser.add_argument("--device", default="auto")
    return parser


def _run(parser: CommandParser, arguments: list[str], task: str) -> None:
    from unlabeled.cli.tables import print_rows
    from unlabeled.training.distributed import pick_device
    from unlabeled_graph import evaluation

    flags = vars(parser.parse_args(arguments))
    runs = [part.strip() for part in flags.pop("run").split(",")]
    data, path, device = flags.pop("data"), flags.pop("json"), pick_device(flags.pop("device"))
    options: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    scores = getattr(evaluation, task)(runs, data, device=device, **options)
    print_rows([score.row() for score in scores])
    if path:
        evaluation.save(scores, Path(path))


def evaluate_nodes(arguments: list[str]) -> None:
    """Linear probe of nodes on a named split: RUN DATA."""
    parser = _parser("evaluate-nodes", "Linear probe of nodes, at the epoch that is best on validation nodes.")
    parser.add_argument("--label", default="label")
    parser.add_argument("--split", default="public", help="public, or random (10/10/80, another each seed)")
    _run(parser, arguments, "node_classification")


def evaluate_graphs(arguments: list[str]) -> None:
    """Ten-fold classification of graphs: RUN DATA."""
    parser = _parser("evaluate-graphs", "Ten-fold classification of graphs.")
    parser.add_argument("--label", default="label")
    parser.add_argument("--classifier", default="svm", choices=("svm", "logistic"))
    _run(parser, arguments, "graph_classification")


def evaluate_links(arguments: list[str]) -> None:
    """Prediction of the edges that pre-training held out: RUN DATA."""
    _run(_parser("evaluate-links", "Prediction of the edges that pre-training held out."), arguments, "link_prediction")


def cluster_nodes(arguments: list[str]) -> None:
    """k-means on nodes beside their classes: RUN DATA."""
    parser = _parser("cluster-nodes", "k-means on nodes beside their classes.")
    parser.add_argument("--label", default="label")
    _run(parser, arguments, "node_clustering")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "evaluate-nodes": evaluate_nodes,
    "evaluate-graphs": evaluate_graphs,
    "evaluate-links": evaluate_links,
    "cluster-nodes": cluster_nodes,
}
