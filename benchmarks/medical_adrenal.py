"""All methods on adrenal glands: pre-train and probe without test shapes. Writes docs/results/medical_adrenal.md.

Each run is a command that the page shows; runs already finished in --runs are not trained again.

    python benchmarks/medical_adrenal.py adrenalmnist3d_64.npz [--methods all] [--patch 8] [--seeds 1]
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from running import seconds, spread, train

from unlabeled import plugins
from unlabeled.cli.tables import markdown
from unlabeled.evaluation.evaluate import evaluate

LEFT_OUT = {"supcon": "it takes labels"}
READ = "--spacing 2"  # stacks count as 1 mm: 32 voxels a side in place of 64
METRICS = {"linear": ("auc", "accuracy"), "knn": ("accuracy",)}
Found = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Kind:
    """A row: a method, how fine its patches are, and for how long."""

    name: str
    patch: int
    epochs: int

    def folder(self, runs: Path, seed: int) -> Path:
        return runs / f"{self.name}-{self.patch}-{self.epochs}-{seed}"

    def command(self, seed: int, data: str, folder: Path) -> list[str]:
        """A run of pre-training."""
        encoder = f"--encoder vit --encoder.patch {self.patch}"
        flags = f"{READ} --method {self.name} {encoder} --epochs {self.epochs} --batch-size 32 --seed {seed}"
        return ["unlabeled", "medical", "pretrain", data, *flags.split(), "--out", str(folder)]


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--methods", default="all", help="names with commas between, or all")
    parser.add_argument("--patch", type=int, default=8, help="voxels a side of a patch")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/medical_adrenal"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/medical_adrenal"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    every = [name for name in plugins.load("medical").methods if name not in LEFT_OUT]
    names = every if flags.methods == "all" else flags.methods.split(",")
    kinds = [Kind(name, flags.patch, flags.epochs) for name in names]
    path = flags.out.with_suffix(".json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}, "untrained": {}}

    def trained(kind: Kind) -> list[Path]:
        folders = [kind.folder(flags.runs, seed) for seed in range(flags.seeds)]
        for seed, folder in enumerate(folders):
            train([*kind.command(seed, flags.data, folder), "--workers", "0"], folder)
        return folders

    with ThreadPoolExecutor(flags.jobs) as pool:
        for kind, folders in zip(kinds, pool.map(trained, kinds), strict=True):
            if str(kind.patch) not in found["untrained"]:
                baselines = measured(folders, flags.data, baselines=True)
                found["untrained"][str(kind.patch)], found["raw"] = baselines["untrained"], baselines["raw"]
            one = measured(folders, flags.data, baselines=False)["trained"]
            took = float(np.mean([seconds(folder) for folder in folders]))
            found["rows"][f"{kind.name} {kind.patch}"] = {"kind": asdict(kind), **one, "seconds": took}
            path.write_text(json.dumps(found, indent=1) + "\n")
            page(found, flags.out.with_suffix(".md"))


def measured(folders: list[Path], data: str, baselines: bool) -> dict[str, Found]:
    """Values of each kind of features by probe and metric."""
    test = f"{data}:test"
    result = evaluate(folders, data, test=test, label="label", seeds=3 if baselines else 1, baselines=baselines)
    out: dict[str, Found] = {}
    for row in result.rows:
        if row.metric in METRICS.get(row.probe, ()):
            out.setdefault(row.features.split(" ")[0], {}).setdefault(row.probe, {})[row.metric] = list(row.values)  # type: ignore[assignment]
    return out


def cells(one: Any) -> dict[str, str]:
    """The columns of a row."""
    titles = {"linear": "linear", "knn": "k-NN"}
    return {
        f"{titles[probe]}, {'AUC' if metric == 'auc' else metric}": spread(one[probe][metric])
        for probe, metrics in METRICS.items()
        for metric in metrics
    }


def page(found: dict[str, Any], path: Path) -> None:
    """The table and the commands behind it."""
    lines = []
    for patch, untrained in sorted(found["untrained"].items(), reverse=True):
        rows = [one for one in found["rows"].values() if str(one["kind"]["patch"]) == patch]
        rows.sort(key=lambda one: -float(np.mean(one["linear"]["auc"])))
        for one in [*rows, untrained]:
            kind = Kind(**one["kind"]) if "kind" in one else None
            more = {
                "epochs": str(kind.epochs) if kind else "",
                "seeds": str(len(one["linear"]["auc"])),
                "s a run": f"{one['seconds']:.0f}" if kind else "",
            }
            title = f"`{kind.name}`" if kind else "untrained"
            lines.append({"features": title, "patch": patch, **cells(one), **more})
    raw = {"features": "raw: occupancy, 8 × 8 × 8", "patch": "", **cells(found["raw"])}
    lines.append({**raw, "epochs": "", "seeds": "3", "s a run": ""})
    first = Kind(**next(iter(found["rows"].values()))["kind"])
    job = first.command(0, "adrenalmnist3d_64.npz", first.folder(Path("runs/medical_adrenal"), 0))
    left = "; ".join(f"`{one}`, since {why}" for one, why in LEFT_OUT.items())
    path.write_text(
        "# Adrenal glands (AdrenalMNIST3D, size 64)\n\n"
        "Normal or enlarged, from the shape alone: 1,188 volumes to pre-train and to fit probes on, 298 to test on,\n"
        "the split of MedMNIST v2. Probes of frozen features of a small vision transformer (width 96, 4 layers) after\n"
        "a few epochs of each method, as its recipe has it; nothing was tuned. The commonest class is 0.769 of the\n"
        "test. With 298 test volumes an AUC is known to about ± 0.03, so that near rows are not told apart.\n\n"
        f"{markdown(lines)}\n"
        "Mean ± standard deviation over seeds of pre-training; of the untrained, over seeds of encoder and probe.\n"
        f"Seconds are of the whole command on one thread ({platform.machine()}, no GPU, torch {torch.__version__}),\n"
        "beside other work. A run and its numbers:\n\n```sh\n"
        + " ".join(job)
        + f"\nunlabeled medical evaluate {job[-1]} adrenalmnist3d_64.npz \\\n"
        "    --test adrenalmnist3d_64.npz:test --label label\n"
        "```\n\nStacks have no spacing of their own and count as 1 mm: `--spacing 2` halves the sides to 32.\n\n"
        "A row: `python benchmarks/medical_adrenal.py adrenalmnist3d_64.npz --methods "
        f"{first.name} --patch {first.patch}`; `--methods all` runs\nevery method but {left}.\n"
    )


if __name__ == "__main__":
    main()
