"""Every method on UCI Adult: pre-train on adult-train.csv without the label, probe on adult-test.csv with few labels.

Writes docs/results/adult.md and adult.json. Runs already finished in --runs are not trained again.

    python benchmarks/adult.py ../shared/data/tabular/adult [--runs runs/adult] [--seeds 5] [--epochs 8]
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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ttest_rel

from unlabeled import plugins
from unlabeled.cli.tables import markdown
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.results import Row
from unlabeled.evaluation.shots import parse

METHODS = "simclr,byol,simsiam,barlow,vicreg,dino,mae,ijepa"  # not all there are: the page's command stays the same
SHOTS = ("1%", "10%", "100%")
SUBSETS = 3  # of the labels, for each pre-training seed
UNTRAINED = "the encoder, untrained"
RAW = "raw: one-hot and standardised"
TREES = "gradient-boosted trees, supervised"
METRICS = {
    ("linear", "accuracy"): "Linear probe, accuracy",
    ("linear", "auc"): "Linear probe, area under the ROC curve",
    ("knn", "accuracy"): "20 nearest neighbours, accuracy",
}

Found = dict[str, dict[str, Any]]  # features -> {"probe metric shots": values [pre-training seed][subset]}


@dataclass(frozen=True)
class Job:
    """One pre-training run."""

    method: str
    seed: int
    folder: Path

    def run(self, flags: argparse.Namespace) -> None:
        """Train, or go on with what an earlier call began; one thread, so that two runs share two cores."""
        if (self.folder / "encoder" / "encoder.json").exists():
            return
        start = time.perf_counter()
        data = str(Path(flags.data) / "adult-train.csv")
        line = [sys.executable, "-m", "unlabeled.cli.main", "tabular", "pretrain", data, "--exclude", "income"]
        line += ["--method", self.method, "--encoder", flags.encoder, "--encoder.depth", str(flags.depth)]
        line += ["--epochs", str(flags.epochs), "--seed", str(self.seed), "--log-every", "100"]
        line += ["--out", str(self.folder)]
        if (self.folder / "config.yaml").exists():
            line.append("--resume")
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, env=environ, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}\n{done.stderr}")
        warnings = [text for text in done.stderr.splitlines() if text.startswith("warning")]
        print(f"{self.folder} {time.perf_counter() - start:.0f} s {' '.join(warnings)}", flush=True)

    @property
    def subsets(self) -> range:
        """Seeds of the label subsets of this run: no other pre-training seed shares them."""
        return range(SUBSETS * self.seed, SUBSETS * (self.seed + 1))

    @property
    def seconds(self) -> float:
        """Of the loop, from the last line of its log."""
        lines = [json.loads(text) for text in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return float([line["seconds"] for line in lines if "seconds" in line][-1])


def probe(data: Path, job: Job, baselines: bool) -> tuple[dict[str, list[Row]], float | None]:
    """One run, and the baselines with the same rows of labels, by the name they have in the table; the majority."""
    torch.set_num_threads(1)
    train, test = str(data / "adult-train.csv"), str(data / "adult-test.csv")
    result = evaluate(
        [job.folder], train, label="income", test=test, seeds=job.subsets, shots=SHOTS, baselines=baselines
    )
    names = {"untrained": UNTRAINED, "raw": RAW}
    rows: dict[str, list[Row]] = {}
    for row in result.rows:
        rows.setdefault(names.get(row.features, f"`{job.method}`"), []).append(row)
    if baselines:
        rows[TREES] = list(trees(data, job.subsets))
    return rows, result.majority


def trees(data: Path, subsets: range) -> Iterator[Row]:
    """A supervised model, for scale: gradient-boosted trees on the raw columns of the same rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    registry = plugins.load("tabular")
    train = registry.make("reader", None, str(data / "adult-train.csv"), exclude=["income"])
    test = registry.make("reader", None, str(data / "adult-test.csv"), facts=train.facts, exclude=["income"])
    (names, y), z = np.unique(train.labels("income"), return_inverse=True), test.labels("income")
    for part in parse(SHOTS):
        scores = []
        for seed in subsets:
            rows = part.rows(y, np.arange(len(y)), seed, list(names))
            model = HistGradientBoostingClassifier(random_state=seed, early_stopping=True).fit(
                train.raw()[rows], y[rows]
            )
            positive = model.predict_proba(test.raw())[:, 1]
            right = names[model.predict(test.raw())] == z
            scores.append((float(np.mean(right)), float(roc_auc_score(z == names[1], positive))))
        accuracy, auc = zip(*scores, strict=True)
        yield Row(TREES, "linear", "accuracy", accuracy, part.text, len(rows))
        yield Row(TREES, "linear", "auc", auc, part.text, len(rows))


def measure(flags: argparse.Namespace, jobs: list[Job]) -> dict[str, Any]:
    """What adult.json holds: every value, and what they were measured on."""
    first = jobs[0].method
    found: Found = {}
    labels: dict[str, int | None] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(partial(probe, Path(flags.data)), jobs, [job.method == first for job in jobs])
        for job, (part, share) in zip(jobs, parts, strict=True):
            print(f"{job.folder} probed", flush=True)
            majority = share
            for name, rows in part.items():
                for row in rows:
                    values = found.setdefault(name, {}).setdefault(f"{row.probe} {row.metric} {row.shots}", [])
                    values.append(row.values)
                    labels[row.shots] = row.n
    order = [*(f"`{job.method}`" for job in jobs if job.seed == jobs[0].seed), UNTRAINED, RAW, TREES]
    return {
        "majority": majority,
        "labels": labels,
        "seconds": {
            f"`{m}`": float(np.median([job.seconds for job in jobs if job.method == m])) for m in flags.methods
        },
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, no GPU, torch {torch.__version__}",
        "values": {name: found[name] for name in order},
    }


def means(found: Found, name: str, column: str) -> list[float]:
    """A value for each pre-training seed: the mean over its subsets of the labels."""
    return [float(np.mean(values)) for values in found[name].get(column, [])]


def gap(found: Found, name: str, column: str) -> tuple[float, float]:
    """Mean paired difference to the untrained encoder, and half its 95 % interval by Student's t."""
    mine, base = means(found, name, column), means(found, UNTRAINED, column)
    low, high = ttest_rel(mine, base).confidence_interval(0.95)
    return float(low + high) / 2, float(high - low) / 2


def block(data: dict[str, Any], metric: tuple[str, str]) -> str:
    """A table of one metric, and the sentence on which methods are clearly above and below."""
    found, rows = data["values"], []
    sides: dict[str, dict[str, list[str]]] = {shots: {"above": [], "below": []} for shots in SHOTS}
    for name, columns in found.items():
        if f"{' '.join(metric)} {SHOTS[0]}" not in columns:
            continue
        row = {"features": name}
        for shots in SHOTS:
            values = means(found, name, f"{' '.join(metric)} {shots}")
            row[_head(shots, data["labels"][shots])] = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        for shots in SHOTS:
            cell = ""
            if name.startswith("`"):
                mean, half = gap(found, name, f"{' '.join(metric)} {shots}")
                clear = abs(mean) > half
                cell = f"**{mean:+.4f}** ± {half:.4f}" if clear else f"{mean:+.4f} ± {half:.4f}"
                if clear:
                    sides[shots]["above" if mean > 0 else "below"].append(name)
            row[f"gain, {_head(shots)}"] = cell
        rows.append(row)
    lines = [f"- {_head(shots)} of the labels: {_verdict(**side)}." for shots, side in sides.items()]
    return f"## {METRICS[metric]}\n\n{markdown(rows)}\n" + "\n".join(lines) + "\n"


def _verdict(above: list[str], below: list[str]) -> str:
    names = [", ".join(side) or "none" for side in (above, below)]
    return f"clearly above the untrained encoder: {names[0]}; clearly below it: {names[1]}"


def _head(shots: str, rows: int | None = None) -> str:
    return shots.replace("%", " %") + (f" (n = {rows:,})" if rows else "")


def page(flags: argparse.Namespace, data: dict[str, Any]) -> str:
    """adult.md."""
    blocks = "\n".join(block(data, metric) for metric in METRICS)
    comparisons = len(data["seconds"]) * len(SHOTS) * len(METRICS)
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in data["seconds"].items())
    chance = 0.025 * comparisons
    again = f"--seeds {flags.seeds} --epochs {flags.epochs} --depth {flags.depth}"
    return f"""# UCI Adult

Pre-trained on the rows of adult-train.csv without `income`, {flags.epochs} epochs with the domain's recipes, encoder
`{flags.encoder}` of depth {flags.depth}. Probes of frozen features are fitted on a stratified part of the same rows
with their labels (n of them) and tested on the 16,281 rows of adult-test.csv. Always the commonest class:
{data["majority"]:.4f}.

How to read the tables:

- There are {flags.seeds} pre-training seeds, each with {SUBSETS} subsets of the labels of its own. A seed's figure is
  the mean over its subsets; shown are the mean ± standard deviation over seeds. The same rows serve all features.
- The untrained encoder has a fresh initialisation for each subset. The strength of the linear probe is chosen inside
  the subset: on five folds of fewer than 1,000 rows, on a fifth of more.
- *Gain* is the mean difference to the untrained encoder on the same rows, ± half its 95 % interval by a paired t-test
  over the {flags.seeds} seeds ({flags.seeds - 1} degrees of freedom; subsets of a seed share its encoder, so they do
  not count as more evidence). **Bold** here, and *clearly* below, mean that the interval excludes 0.
- There are {comparisons} comparisons. Were no method different, about {chance:.1f} would seem clearly above.
- The intervals are over initialisations and subsets; there is one test file.

{blocks}
The trees are fitted on the same rows with their labels and stand beside the linear probe for scale.

Seconds a pre-training run, in one thread while two runs share the machine, median over seeds: {seconds}
({data["machine"]}).

Made by `python benchmarks/adult.py ../shared/data/tabular/adult {again}`.
"""


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--runs", default="runs/adult")
    parser.add_argument("--seeds", type=int, default=5, help="of pre-training; at least 2 for an interval")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--encoder", default="ft_transformer")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS.split(","))
    parser.add_argument("--out", default="docs/results/adult")
    parser.add_argument("--page", action="store_true", help="write adult.md again from adult.json")
    flags = parser.parse_args()
    text = Path(f"{flags.out}.json")
    if not flags.page:
        jobs = [Job(m, seed, Path(flags.runs) / f"{m}-{seed}") for seed in range(flags.seeds) for m in flags.methods]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: job.run(flags), jobs))
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(json.dumps(measure(flags, jobs), indent=1) + "\n")
    made = page(flags, json.loads(text.read_text()))
    Path(f"{flags.out}.md").write_text(made)
    print(made)


if __name__ == "__main__":
    main()
