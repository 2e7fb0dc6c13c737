"""Every method on UCI Adult: pre-train on adult-train.csv without the label, probe on adult-test.csv.

Writes docs/results/adult.md and adult.json. Runs already finished in --runs are not trained again.

    python benchmarks/adult.py ../shared/data/tabular/adult [--runs runs/adult] [--seeds 3] [--epochs 8]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from unlabeled import plugins
from unlabeled.cli.tables import figure, markdown
from unlabeled.evaluation.evaluate import Row, evaluate
from unlabeled.saved import describe

UNTRAINED = "the encoder, untrained"
METRICS = (("linear", "accuracy"), ("linear", "auc"), ("knn", "accuracy"))


@dataclass(frozen=True)
class Job:
    """One pre-training run."""

    method: str
    seed: int
    folder: Path

    def run(self, flags: argparse.Namespace) -> None:
        """Train, or go on with what an earlier call began; one thread, so that two runs share two cores."""
        start = time.perf_counter()
        data = str(Path(flags.data) / "adult-train.csv")
        line = [sys.executable, "-m", "unlabeled.cli.main", "tabular", "pretrain", data, "--exclude", "income"]
        line += ["--method", self.method, "--encoder", flags.encoder, "--encoder.depth", str(flags.depth)]
        line += [
            "--epochs",
            str(flags.epochs),
            "--seed",
            str(self.seed),
            "--log-every",
            "100",
            "--out",
            str(self.folder),
        ]
        if (self.folder / "config.yaml").exists():
            line.append("--resume")
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, env=environ, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}\n{done.stderr}")
        warnings = [text for text in done.stderr.splitlines() if text.startswith("warning")]
        print(f"{self.folder} {time.perf_counter() - start:.0f} s {' '.join(warnings)}", flush=True)

    @property
    def seconds(self) -> float:
        """Of the loop, from the last line of its log."""
        lines = [json.loads(text) for text in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return float([line["seconds"] for line in lines if "seconds" in line][-1])


def trees(data: Path) -> list[Row]:
    """A supervised model with every label, for scale: gradient-boosted trees on the raw columns."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    registry = plugins.load("tabular")
    train = registry.make("reader", None, str(data / "adult-train.csv"), exclude=["income"])
    test = registry.make("reader", None, str(data / "adult-test.csv"), facts=train.facts, exclude=["income"])
    y, z = train.labels("income"), test.labels("income")
    scores: list[tuple[float, float]] = []
    for seed in range(3):
        model = HistGradientBoostingClassifier(random_state=seed, early_stopping=True).fit(train.raw(), y)
        positive = model.predict_proba(test.raw())[:, 1]
        scores.append((float(np.mean(model.predict(test.raw()) == z)), float(roc_auc_score(z, positive))))
    accuracy, auc = (tuple(one) for one in zip(*scores, strict=True))
    return [Row("trees", "linear", "accuracy", accuracy), Row("trees", "linear", "auc", auc)]


def lines(found: dict[str, list[Row]], seconds: dict[str, float]) -> Iterator[dict[str, str]]:
    """The table's rows."""
    for name, rows in found.items():
        cells = {(row.probe, row.metric): figure(row) for row in rows}
        shown = {f"{probe} {metric}": cells.get((probe, metric), "") for probe, metric in METRICS}
        yield {"features": name, **shown, "seconds a run": f"{seconds[name]:.0f}" if name in seconds else ""}


def verdict(found: dict[str, list[Row]], place: int) -> str:
    """Which methods are clearly above the untrained encoder: by more than two standard errors of the difference."""
    base = found[UNTRAINED][place]
    above, same, below = [], [], []
    for name, rows in found.items():
        if not name.startswith("`"):
            continue
        error = ((rows[place].spread ** 2 + base.spread**2) / len(base.values)) ** 0.5
        gap = rows[place].mean - base.mean
        (above if gap > 2 * error else below if gap < -2 * error else same).append(f"{name} ({gap:+.4f})")
    text = f"- {base.probe} {base.metric}: above it {', '.join(above) or 'none'};"
    text += f" no clear difference {', '.join(same) or 'none'};"
    return text + f" below it {', '.join(below) or 'none'}."


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--runs", default="runs/adult")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--encoder", default="ft_transformer")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--methods", default=",".join(plugins.load("tabular").methods))
    parser.add_argument("--out", default="docs/results/adult")
    parser.add_argument("--page", action="store_true", help="write adult.md again from adult.json")
    flags = parser.parse_args()
    methods = flags.methods.split(",")
    jobs = [Job(m, seed, Path(flags.runs) / f"{m}-{seed}") for seed in range(flags.seeds) for m in methods]
    if not flags.page:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: job.run(flags), jobs))
    if not flags.page:
        write(flags, methods, jobs)
    page(flags, jobs)


def write(flags: argparse.Namespace, methods: list[str], jobs: list[Job]) -> None:
    """Evaluate finished runs into adult.json."""
    data = Path(flags.data)
    train, test = str(data / "adult-train.csv"), str(data / "adult-test.csv")
    found: dict[str, list[Row]] = {}
    for number, method in enumerate(methods):
        mine = [job for job in jobs if job.method == method]
        runs = [job.folder for job in mine]
        result = evaluate(runs, train, label="income", test=test, seeds=1, baselines=False)
        found[f"`{method}`"] = list(result.rows)
        if number == 0:
            base = evaluate(runs[:1], train, label="income", test=test, seeds=flags.seeds)
            majority = base.majority
    for name, features in ((UNTRAINED, "untrained"), ("raw: one-hot and standardised", "raw")):
        found[name] = [row for row in base.rows if row.features == features]
    found["gradient-boosted trees, supervised"] = trees(data)
    plain = {
        name: [{"probe": r.probe, "metric": r.metric, "values": r.values} for r in rows] for name, rows in found.items()
    }
    Path(flags.out).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{flags.out}.json").write_text(json.dumps({"majority": majority, "rows": plain}, indent=1) + "\n")


def page(flags: argparse.Namespace, jobs: list[Job]) -> None:
    """adult.md from adult.json and the runs."""
    data = json.loads(Path(f"{flags.out}.json").read_text())
    found = {
        name: [Row(name, row["probe"], row["metric"], tuple(row["values"])) for row in rows]
        for name, rows in data["rows"].items()
    }
    methods = list(dict.fromkeys(job.method for job in jobs))
    seconds = {f"`{m}`": float(np.median([job.seconds for job in jobs if job.method == m])) for m in methods}
    saved = describe(jobs[0].folder)
    verdicts = "\n".join(verdict(found, place) for place in range(len(METRICS)))
    Path(f"{flags.out}.md").write_text(
        "# UCI Adult\n\n"
        f"Pre-trained on the 32,561 rows of adult-train.csv without `income`, {flags.epochs} epochs with the domain's\n"
        f"recipes, encoder `{saved.encoder.name}` of depth {flags.depth}; probes of frozen features fitted on the\n"
        "same rows with their labels and tested on the 16,281 rows of adult-test.csv. Mean ± standard deviation over\n"
        f"{flags.seeds} seeds of pre-training (of initialisation, for the untrained encoder). The strength of the\n"
        "linear probe is chosen on a fifth of the training rows. Always the commonest class: "
        f"{data['majority']:.4f}.\n\n{markdown(list(lines(found, seconds)))}\n"
        "Beside the untrained encoder, by two standard errors of the difference of means:\n\n"
        f"{verdicts}\n\n"
        "Seconds are of the training loop in one thread while two runs share the machine "
        f"({os.cpu_count()} processors, {platform.machine()}, no GPU, torch {torch.__version__}).\n\n"
        "Made by `python benchmarks/adult.py ../shared/data/tabular/adult"
        f" --epochs {flags.epochs} --depth {flags.depth}`.\n"
    )
    print(Path(f"{flags.out}.md").read_text())


if __name__ == "__main__":
    main()
