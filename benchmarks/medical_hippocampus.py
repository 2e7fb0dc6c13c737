"""Segmenting the hippocampus with few labels. Writes docs/results/medical_hippocampus.md.

The encoder is pre-trained without labels on the first 200 volumes by name; the last 60 are the test. What is already
in --runs is not computed again.

    python benchmarks/medical_hippocampus.py ../shared/data/medical/hippocampus [--shots 5%,10%,25%] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.cli.tables import markdown

TEST = 60
STRUCTURES = {"1": "anterior", "2": "posterior"}
PRETRAIN = "--method {method} --encoder {encoder} --epochs {epochs}"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that jobs can share the cores


def call(arguments: list[str]) -> None:
    """One command of unlabeled."""
    line = [sys.executable, "-m", "unlabeled.cli.main", *arguments]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stderr}")
    print(" ".join(arguments), flush=True)


def manifest(data: Path, runs: Path) -> str:
    """A CSV of the volumes that may be trained on."""
    names = sorted((data / "images").glob("*.nii.gz"))[:-TEST]
    path = runs / "train.csv"
    path.write_text("\n".join(["path", *(str(name.resolve()) for name in names)]) + "\n")
    return str(path)


def pretrained(seed: int, train: str, flags: argparse.Namespace) -> str:
    """The folder of a pre-training run."""
    folder = Path(flags.runs) / f"{flags.method}-{flags.encoder}-{seed}"
    if not (folder / "encoder" / "encoder.json").exists():
        options = f"{PRETRAIN.format(**vars(flags))} --seed {seed} --out {folder}"
        call(["medical", "pretrain", train, *options.split()])
    return str(folder)


def measured(job: tuple[str, str], runs: list[str], flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores of one mode with one share of the labels."""
    mode, share = job
    path = Path(flags.runs) / f"{flags.method}-{flags.encoder}-{mode}-{share.rstrip('%')}.json"
    if not path.exists():
        data = Path(flags.data)
        what = [",".join(runs), str(data / "images"), str(data / "labels")]
        options = f"--test {TEST} --shots {share} --modes {mode} --seeds {flags.seeds} --steps {flags.steps}"
        call(["medical", "evaluate-segmentation", *what, *options.split(), "--json", str(path)])
    scores: list[dict[str, Any]] = json.loads(path.read_text())
    return scores


def row(scores: list[dict[str, Any]]) -> dict[str, str]:
    """The structures of one kind of features as a line of the table."""
    first = scores[0]
    cells = {"labels": f"{first['volumes']} volumes", "mode": first["mode"], "encoder": first["features"]}
    for one in scores:
        dice, distance = np.array(one["dice"]), np.array(one["distance"])
        name = STRUCTURES[one["structure"]]
        cells[f"Dice, {name}"] = f"{dice.mean():.3f} ± {dice.std():.3f}"
        cells[f"distance, {name} (mm)"] = f"{distance.mean():.2f} ± {distance.std():.2f}"
    return cells


def page(found: list[dict[str, Any]], flags: argparse.Namespace) -> str:
    """docs/results/medical_hippocampus.md."""
    pairs = [found[at : at + len(STRUCTURES)] for at in range(0, len(found), len(STRUCTURES))]
    machine = f"{os.cpu_count()} processors, {platform.machine()}, no GPU, torch {torch.__version__}"
    options = PRETRAIN.format(**vars(flags))
    runs = ",".join(f"runs/{flags.method}-{seed}" for seed in range(flags.seeds))
    budget = f"--test {TEST} --shots {flags.shots} --seeds {flags.seeds} --steps {flags.steps}"
    return f"""# Hippocampus, few labels

Segmentation of Task04_Hippocampus (Medical Segmentation Decathlon): the last {TEST} of 260 volumes by name are the
test. `{flags.encoder}` was pre-trained by `{flags.method}` for {flags.epochs} epochs on the first 200 without labels,
{flags.seeds} times. Every line has the same head, volumes, augmented crops and {flags.steps} steps of training;
mean ± standard deviation over {flags.seeds} seeds of pre-training, choice of volumes, head and crops. The last epoch
and step count, and nothing was chosen by test labels. The budget is one of two shared processor cores: it is far from
what these networks reach when trained to the end, and compares encoders only.

{markdown([row(pair) for pair in pairs])}

Distance is the average symmetric surface distance where the structure was found at all ({machine}).

```sh
unlabeled medical pretrain train.csv {options} --seed 0 --out runs/{flags.method}-0
unlabeled medical evaluate-segmentation {runs} images labels {budget}
```

`train.csv` is a manifest of the first 200 volumes. All of it:
`python benchmarks/medical_hippocampus.py ../shared/data/medical/hippocampus`.
"""


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--method", default="mae")
    parser.add_argument("--encoder", default="resnet3d")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--shots", default="5%,10%,25%")
    parser.add_argument("--modes", default="probe,finetune")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--runs", default="runs/medical_hippocampus")
    parser.add_argument("--out", default="docs/results/medical_hippocampus")
    flags = parser.parse_args()
    Path(flags.runs).mkdir(parents=True, exist_ok=True)
    train = manifest(Path(flags.data), Path(flags.runs))
    with ThreadPoolExecutor(flags.jobs) as pool:
        runs = list(pool.map(lambda seed: pretrained(seed, train, flags), range(flags.seeds)))
        jobs = [(mode, share) for mode in flags.modes.split(",") for share in flags.shots.split(",")]
        found = [score for scores in pool.map(lambda job: measured(job, runs, flags), jobs) for score in scores]
    Path(f"{flags.out}.json").write_text(json.dumps(found, indent=1) + "\n")
    Path(f"{flags.out}.md").write_text(page(found, flags))


if __name__ == "__main__":
    main()
