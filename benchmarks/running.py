"""What benchmarks share: training runs by the command line, once, and fine-tuning them; how figures are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled import plugins
from unlabeled.refusal import method_needs


def train(command: Sequence[str], folder: Path) -> None:
    """Run `unlabeled ...` unless its run folder is complete; on one thread, so that runs can share the cores."""
    if (folder / "seconds").exists():
        return
    line = [sys.executable, "-m", "unlabeled.cli.main", *command[1:]]
    start = time.perf_counter()
    done = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stderr}")
    (folder / "seconds").write_text(f"{time.perf_counter() - start:.1f}")
    print(f"{folder}: {seconds(folder):.0f} s", flush=True)


def tuned(command: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Accuracies by features (trained, from scratch) and shots, of `unlabeled ... evaluate --json FILE`, run once."""
    path = Path(command[-1])
    if not path.exists():
        line = [sys.executable, "-m", "unlabeled.cli.main", *command[1:]]
        subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    out: dict[str, dict[str, list[float]]] = {}
    for row in json.loads(path.read_text())["rows"]:
        if (row["probe"], row["metric"]) == ("finetune", "accuracy"):
            out.setdefault(row["features"].split(" (")[0], {})[row["shots"]] = row["values"]
    return out


def joined(before: Any, more: Any, first: int) -> Any:
    """Values of the first so many seeds, and of the seeds from there on, in tables of lists that are nested alike."""
    if not first:
        return more
    if isinstance(more, Mapping):
        return {name: joined(before.get(name, {}), values, first) for name, values in more.items()}
    if len(before) < first:
        raise SystemExit(f"there are no values of the seeds below {first}; leave --first-seed out")
    return [*before[:first], *more]


def of_tokens(domain: str, method: str) -> bool:
    """Whether a method needs tokens, or their mixing point, of its encoder."""
    registry = plugins.load(domain)
    return bool(method_needs(registry.methods[method], registry) & {"tokens", "embed"})


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation; of one value that value."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def seconds(folder: Path) -> float:
    """What a run took, of the whole command."""
    return float((folder / "seconds").read_text())
