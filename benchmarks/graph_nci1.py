"""GraphMAE on NCI1's graphs: pre-train without labels, ten folds of a support vector machine.

Writes docs/results/graph_nci1.md. Runs already finished in --runs are not trained again.

    python benchmarks/graph_nci1.py ../shared/data/graphs/tu/NCI1 [--seeds 3] [--epochs 20]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from running import train

from unlabeled.cli.tables import markdown
from unlabeled_graph.evaluation import graph_classification

PUBLISHED = 80.4  # arXiv 2205.10803, after 300 epochs
PAPER = "--batch-size 16 --weight-decay 0 --hide random:ratio=0.25,swap=0.1 --set rebuild.gamma=2"  # its own settings


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--runs", default="runs/graph_nci1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="docs/results/graph_nci1.md")
    flags = parser.parse_args()
    settings = f"--method graphmae --encoder gin --epochs {flags.epochs} {PAPER}"
    runs = [Path(flags.runs) / str(seed) for seed in range(flags.seeds)]
    for seed, run in enumerate(runs):
        line = f"unlabeled graph pretrain {flags.data} {settings} --seed {seed} --out {run}"
        train(line.split(), run)
    scores = graph_classification(runs, flags.data, seeds=flags.seeds)
    lines = [
        {
            "features": score.features,
            "accuracy": f"{100 * score.mean:.1f} ± {100 * score.spread:.1f}",
            "published": f"{PUBLISHED}" if score.features.startswith("trained") else "",
            "split": score.split,
            "seeds": str(len(score.values)),
        }
        for score in scores
    ]
    text = (
        "# NCI1, graphs\n\n"
        "Accuracy of a support vector machine on frozen features: the mean over ten stratified folds, its strength "
        "chosen\non a fifth of each fold's training graphs; mean ± standard deviation over seeds of pre-training and "
        "folds.\n\n"
        f"{markdown(lines)}\n"
        f"`unlabeled graph pretrain NCI1 {settings}`; all of it: `python benchmarks/graph_nci1.py "
        f"../shared/data/graphs/tu/NCI1` (torch {torch.__version__}).\n"
    )
    Path(flags.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
