"""Cargo ships and tankers in scenes that nothing was trained on (OpenSARShip). Writes docs/results/eo_ships.md.

Each scene in turn is the test; the encoder is pre-trained without labels on the other scenes, and the probe fitted
on their labels. Runs already finished in --runs are not trained again.

    python benchmarks/eo_ships.py ../shared/data/eo/opensarship [--methods simclr,sar_jepa] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from running import seconds, spread, train

from unlabeled.cli.tables import markdown
from unlabeled.evaluation.evaluate import evaluate
from unlabeled_eo.leakage import panel
from unlabeled_eo.readers import EOReader

READ = {"bands": "VH,VV", "stored": "linear", "scale": "db", "centre": 72}
SIDE = 64  # pixels of views and raw features; smaller chips have no value around them
METHODS = {
    "simclr": "--encoder resnet --encoder.model test_resnet --view.gain 2 --lr 2e-3",
    "sar_jepa": "--encoder vit",
}
TYPES = ("Cargo", "Tanker")


@dataclass(frozen=True)
class Part:
    """One scene left out: manifests of what is trained on and what is tested."""

    scene: str
    unlabelled: Path  # all chips of the other scenes
    train: Path  # those of the two types
    test: Path

    @staticmethod
    def of(data: Path, scene: str, runs: Path) -> Part:
        """Write the manifests."""
        chips = sorted(data.glob("*GRD*/Patch_Cal/*.tif"))
        kinds = {
            "unlabelled": [one for one in chips if scene not in str(one)],
            "train": [one for one in chips if scene not in str(one) and _type(one) in TYPES],
            "test": [one for one in chips if scene in str(one) and _type(one) in TYPES],
        }
        runs.mkdir(parents=True, exist_ok=True)
        paths = {kind: runs / f"{scene}-{kind}.csv" for kind in kinds}
        for kind, files in kinds.items():
            paths[kind].write_text("".join(f"{line}\n" for line in ["path,type", *map(_row, files)]))
        return Part(scene, **paths)


def _type(path: Path) -> str:
    return path.name.split("_x")[0]


def _row(path: Path) -> str:
    return f"{path.resolve()},{_type(path)}"


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/eo_ships"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/eo_ships"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    scenes = sorted(one.name for one in flags.data.glob("*GRD*"))
    parts = [Part.of(flags.data, scene, flags.runs) for scene in scenes]
    names = flags.methods.split(",")
    folders = {
        (name, part.scene): [flags.runs / f"{name}-{part.scene}-{seed}" for seed in range(flags.seeds)]
        for name in names
        for part in parts
    }
    with ThreadPoolExecutor(flags.jobs) as pool:
        jobs = [
            pool.submit(train, command(name, part, seed, flags.epochs, folder), folder)
            for name in names
            for part in parts
            for seed, folder in enumerate(folders[name, part.scene])
        ]
        for job in jobs:
            job.result()
    found: dict[str, Any] = {"scenes": {}, "epochs": flags.epochs, "seeds": flags.seeds, "seconds": {}}
    for part in parts:
        one: dict[str, Any] = {"leaks": leaks(part)}
        found["scenes"][part.scene] = one
        for name in names:
            one[name] = measured(part, folders[name, part.scene])
    for name in names:
        took = [seconds(folder) for part in parts for folder in folders[name, part.scene]]
        found["seconds"][name] = float(np.mean(took))
    flags.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    page(found, parts, flags.out.with_suffix(".md"))


def command(name: str, part: Part, seed: int, epochs: int, folder: Path) -> list[str]:
    """Pre-training on the chips of the other scenes."""
    read = " ".join(f"--{key} {value}" for key, value in READ.items())
    flags = f"{read} --view.crop {SIDE} --method {name} {METHODS[name]} --epochs {epochs} --batch-size 32"
    line = f"{flags} --seed {seed} --workers 0 --out {folder}"
    return ["unlabeled", "eo", "pretrain", str(part.unlabelled), *line.split()]


def measured(part: Part, runs: list[Path]) -> dict[str, dict[str, list[float]]]:
    """Accuracy and area under the ROC curve of linear probes on the scene, of all kinds of features."""
    result = evaluate(runs, str(part.train), test=str(part.test), label="type", protocol="linear", seeds=len(runs))
    out: dict[str, dict[str, list[float]]] = {}
    for row in result.rows:
        if row.metric in ("accuracy", "auc"):
            out.setdefault(row.features.split(" ")[0], {})[row.metric] = list(row.values)
    return out


def leaks(part: Part) -> dict[str, float]:
    """What the size of a chip, its file and its brightness alone tell."""
    how: Any = {key: value for key, value in READ.items() if key != "centre"}
    train = EOReader(str(part.train), **how)
    test = EOReader(str(part.test), facts=train.facts, stored="linear")
    return {leak.what: leak.accuracy for leak in panel(train, "type", test)}


def page(found: dict[str, Any], parts: list[Part], path: Path) -> None:
    """The table and a command behind it."""
    first = next(iter(METHODS))
    kinds = {name: (name, "trained") for name in found["seconds"]}
    lines = []
    for title, key in {"always the commonest": "majority", "size of the chip alone": "size"}.items():
        values = {part.scene: found["scenes"][part.scene]["leaks"].get(key) for part in parts}
        lines.append({"features": title, **{_short(scene): f"{value:.3f}" for scene, value in values.items()}})
    rows: dict[str, tuple[str, str]] = {"raw pixels": (first, "raw")}
    for name, trained in kinds.items():
        rows |= {f"untrained ({METHODS[name].split()[1]})": (name, "untrained"), f"`{name}`": trained}
    for title, (name, kind) in rows.items():
        cells = {}
        for part in parts:
            values = found["scenes"][part.scene][name][kind]
            cells[_short(part.scene)] = " / ".join(spread(values[metric], 2) for metric in ("accuracy", "auc"))
        lines.append({"features": title, **cells})
    sizes = ", ".join(f"{_short(part.scene)}: {_count(part.train)} to {_count(part.test)}" for part in parts)
    folder = Path("runs/eo_ships")
    shown = replace(parts[0], unlabelled=folder / parts[0].unlabelled.name)
    job = command(first, shown, 0, found["epochs"], folder / f"{first}-{shown.scene}-0")
    text = (
        "# OpenSARShip, across scenes\n\n"
        "Cargo ships or tankers, in Sentinel-1 GRD scenes (VH, VV, in decibels, the middle 72 pixels of each chip):\n"
        "accuracy / area under the ROC curve of a linear probe, fitted on the other scenes and tested on the one that\n"
        f"heads the column; mean ± standard deviation over {found['seeds']} seeds of pre-training, which saw the\n"
        f"other scenes without labels ({found['epochs']} epochs). Chips to fit on and to test on:\n{sizes}.\n"
        "These are few: a chip more or less is up to a tenth, and no order of methods follows from this table. The\n"
        "size of a chip is that of the ship, which the types differ in; centring on one window takes it away but for\n"
        "what is blank.\n\n"
        f"{markdown(lines)}\n"
        "A run takes "
        + ", ".join(f"{took:.0f} s (`{name}`)" for name, took in found["seconds"].items())
        + f" on one thread ({platform.machine()}, no GPU, torch {torch.__version__}); here the first, whose manifest\n"
        "the script writes:\n\n```sh\n" + " ".join(job) + "\n```\n\n"
        "All of it: `python benchmarks/eo_ships.py ../shared/data/eo/opensarship --seeds "
        f"{found['seeds']}`.\n"
    )
    path.write_text(text)
    print(text)


def _short(scene: str) -> str:
    """The day of a scene."""
    day = scene.split("_")[4][:8]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def _count(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1


if __name__ == "__main__":
    main()
