"""A run on two processes is the run on one: same data, same views, same losses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest_training import environment, metrics

LINE = "toy pretrain digits --steps 8 --batch-size 64 --log-every 2 --encoder.dropout 0 --checkpoint-every 4".split()


def torchrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    line += ["-m", "unlabeled.cli.main", *LINE, *arguments]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize(
    "method", ["--method byol", "--method mae", "--term contrast --term rebuild --weights pareto_unit"]
)
def test_two_ranks_are_one(method: str, tmp_path: Path) -> None:
    done = torchrun(2, *method.split(), "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    one = [sys.executable, "-m", "unlabeled.cli.main", *LINE, *method.split(), "--out", str(tmp_path / "one")]
    subprocess.run(one, env=environment(), check=True, capture_output=True, timeout=200)
    single, double = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(single) == len(double) == 13
    for a, b in zip(single, double, strict=True):
        assert a == pytest.approx(b, rel=2e-3, abs=1e-4), "only rounding differs"
