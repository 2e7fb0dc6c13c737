"""Seconds of the linear probe with its whole path of strengths, and of k-NN, on many made-up features.

python benchmarks/probe_speed.py --json docs/results/probe_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.evaluation.nearest import nearest, unit
from unlabeled.evaluation.probes import Split, linear_probe


def features(rows: int, width: int, classes: int, apart: float, seed: int = 0) -> tuple[Any, Any]:
    """Features whose directions fall off as those of encoders do (spectrum 1/i), of classes that overlap."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(width, width)).astype(np.float32) * (np.arange(1, width + 1) ** -0.5)[:, None]
    centres = random.normal(size=(classes, width)).astype(np.float32) * apart
    labels = random.integers(0, classes, rows)
    x = centres[labels] + random.normal(size=(rows, width)).astype(np.float32)
    return (x @ mix).astype(np.float32), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=int, nargs=3, default=[100_000, 768, 100], metavar=("ROWS", "WIDTH", "CLASSES"))
    parser.add_argument("--knn", type=int, nargs=3, default=[10_000, 1_000_000, 384], metavar=("QUERIES", "KEYS", "D"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}

    rows, width, classes = options.probe
    x, labels = features(rows + 10_000, width, classes, 0.15)
    split = Split(x[:rows], labels[:rows], x[rows:], labels[rows:])
    began = time.perf_counter()
    accuracy = linear_probe(split, 0)["accuracy"]
    seconds = time.perf_counter() - began
    found["linear"] = {"rows": rows, "width": width, "classes": classes, "seconds": round(seconds, 1)}
    print(f"linear probe of {rows:,} × {width}, {classes} classes: {seconds:.1f} s, accuracy {accuracy:.3f}")

    asked, count, width = options.knn
    x, _ = features(count + asked, width, 1000, 0.3, seed=1)
    queries, keys = unit(torch.from_numpy(x[count:])), unit(torch.from_numpy(x[:count]))
    del x
    began = time.perf_counter()
    cosines = nearest(queries, keys, 20)[0]
    seconds = time.perf_counter() - began
    some = torch.arange(0, asked, max(1, asked // 200))
    exact = (queries[some] @ keys.T).topk(20)
    found["knn"] = {"queries": asked, "keys": count, "width": width, "seconds": round(seconds, 1)}
    found["knn"]["as found in full"] = float((cosines[some] - exact.values).abs().max())
    print(f"20 nearest of {count:,} × {width} for {asked:,} queries: {seconds:.1f} s")
    print(f"  cosines differ by {found['knn']['as found in full']:.1e} from a full search, in {len(some)} queries")
    found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
