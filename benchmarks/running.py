"""What benchmarks share: training runs by the command line, once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


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


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation; of one value that value."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def seconds(folder: Path) -> float:
    """What a run took, of the whole command."""
    return float((folder / "seconds").read_text())
