"""Methods on Cora's nodes: pre-train without labels, probe on the public split. Writes docs/results/graph_cora.md.

Each run is a command that the page shows; runs already finished in --runs are not trained again.

    python benchmarks/graph_cora.py ../shared/data/graphs/planetoid/cora [--methods cca_ssg,grace] [--seeds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from running import seconds, train

from unlabeled import plugins
from unlabeled.cli.tables import markdown
from unlabeled_graph.evaluation import Score, node_classification

GRACE = "--encoder gcn --encoder.last-activation true"
BGRL = "--encoder gcn --encoder.norm batch --encoder.activation prelu --encoder.last-activation true"
ROWS = {  # name in the papers: method, encoder, published accuracy on the public split
    "cca_ssg": ("cca_ssg", "--encoder gcn", 84.0),
    "graphmae": ("graphmae", "--encoder gat", 84.2),
    "bgrl": ("bgrl", BGRL, 82.7),
    "grace": ("grace", GRACE, 81.9),
}


@dataclass(frozen=True)
class Job:
    """One pre-training run."""

    name: str
    seed: int
    folder: Path

    def command(self, data: str) -> list[str]:
        method, encoder, _ = ROWS[self.name]
        flags = f"--method {method} {encoder} --seed {self.seed} --log-every 100 --out {self.folder}"
        return ["unlabeled", "graph", "pretrain", data, *flags.split()]

    def run(self, data: str) -> None:
        """Train what is not trained yet."""
        train(self.command(data), self.folder)

    @property
    def seconds(self) -> float:
        """Of the whole command."""
        return seconds(self.folder)


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--methods", default=",".join(name for name, row in ROWS.items() if row[0] in known()))
    parser.add_argument("--runs", default="runs/graph_cora")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", default="docs/results/graph_cora")
    flags = parser.parse_args()
    out = Path(f"{flags.out}.json")
    found = json.loads(out.read_text()) if out.exists() else {}
    for name in flags.methods.split(","):
        jobs = [Job(name, seed, Path(flags.runs) / f"{name}-{seed}") for seed in range(flags.seeds)]
        with ThreadPoolExecutor(flags.jobs) as pool:
            list(pool.map(lambda job: job.run(flags.data), jobs))
        scores = node_classification([job.folder for job in jobs], flags.data, seeds=max(flags.seeds, 3))
        found[name] = {
            "scores": [{"features": score.features, "split": score.split, "values": score.values} for score in scores],
            "seconds": float(np.median([job.seconds for job in jobs])),
            "runs": len(jobs),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
    page(found, Path(f"{flags.out}.md"))


def known() -> set[str]:
    """The methods that are installed."""
    return set(plugins.load("graph").methods)


def page(found: dict[str, dict[str, object]], path: Path) -> None:
    """The table and the commands behind it."""
    lines, commands = [], []
    for name, one in found.items():
        scores = [Score(s["features"], "", s["split"], "", tuple(s["values"])) for s in one["scores"]]  # type: ignore[attr-defined]
        trained, untrained, raw = (f"{100 * s.mean:.1f} ± {100 * s.spread:.1f}" for s in scores)
        lines.append(
            {
                "method": f"`{name}`",
                "accuracy": trained,
                "published": f"{ROWS[name][2]:.1f}",
                "the encoder, untrained": untrained,
                "raw features": raw,
                "split": scores[0].split,
                "runs": str(one["runs"]),
                "seconds a run": f"{one['seconds']:.0f}",
            }
        )
        commands.append(" ".join(Job(name, 0, Path(f"runs/graph_cora/{name}-0")).command("cora")))
    text = (
        "# Cora, nodes\n\n"
        "Test accuracy of a linear probe of frozen features on the public split (140 nodes to train, 500 to validate,\n"
        "1,000 to test), at the epoch and the feature scale (one for all seeds) of best validation accuracy; mean ±\n"
        "standard deviation over seeds of pre-training (runs) and probe. Random splits give higher ones.\n\n"
        f"{markdown(lines)}\n"
        "Seconds are of the whole command in one thread, reading and saving included "
        f"({os.cpu_count()} processors, {platform.machine()}, no GPU, torch {torch.__version__}).\n\n"
        "A run and its number, here of seed 0:\n\n```sh\n" + "\n".join(commands) + "\n"
        f"unlabeled graph evaluate-nodes runs/graph_cora/{next(iter(found))}-0 cora\n```\n\n"
        "All of it: `python benchmarks/graph_cora.py ../shared/data/graphs/planetoid/cora`.\n"
    )
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
