"""A run that is killed at any moment and resumed is bit-identical to one that never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest_training import environment, metrics
from unlabeled.training.signals import Stopper

LINE = (
    "toy pretrain digits --method dino --steps 45 --batch-size 64 --accumulate 2 --checkpoint-every 4 "
    "--log-every 3 --health-every 6 --seed 5 --set prototypes.prototypes=64 --set views.local=2"
).split()

# Runs the command line and kills its own process with SIGKILL inside the n-th write of a checkpoint.
KILLER = """
import os, signal, sys
from unlabeled.cli.main import main
point, count = sys.argv[1], int(sys.argv[2])
def dying(real):
    def call(*arguments, **options):
        global count
        target = str(arguments[-1]) if point == "replace" else os.readlink(f"/proc/self/fd/{arguments[0]}")
        if "step-" in target:
            count -= 1
            if count == 0:
                if point == "fsync":
                    os.truncate(target, os.path.getsize(target) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
setattr(os, point, dying(getattr(os, point)))
sys.exit(main(sys.argv[3:]))
"""


def run(*arguments: str, killer: tuple[str, int] | None = None) -> int:
    start = ["-c", KILLER, killer[0], str(killer[1])] if killer else ["-m", "unlabeled.cli.main"]
    line = [sys.executable, *start, *arguments]
    return subprocess.run(line, env=environment(), capture_output=True, timeout=200).returncode


def kill_at(folder: Path, step: int, *arguments: str) -> None:
    """Start a run and SIGKILL it, with its workers, once it has logged a step."""
    line = [sys.executable, "-m", "unlabeled.cli.main", *arguments]
    process = subprocess.Popen(line, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and f'"step": {step}, "epoch"' in (folder / "metrics.jsonl").read_text():
            break
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(*LINE, "--out", str(folder)) == 0
    return folder


def assert_same(one: Path, two: Path) -> None:
    """Weights, everything in the last checkpoint's model, and metrics are bit-identical."""
    first, second = (load_file(folder / "encoder" / "encoder.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(one) == metrics(two)
    models = [torch.load(run / "checkpoints" / "step-00000045.pt", weights_only=True)["model"] for run in (one, two)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_killed_runs_go_on_exactly(whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    again = ["toy", "pretrain", "--resume", "--out", str(broken)]
    step = 3 * random.randrange(2, 5)
    kill_at(broken, step, *LINE, "--out", str(broken), "--workers", "2")  # mid-epoch: an epoch has 25 steps
    assert run(*again, "--workers", "1", killer=("fsync", 3)) == -signal.SIGKILL  # half a checkpoint is written aside
    assert run(*again, killer=("replace", 2)) == -signal.SIGKILL  # a whole one, not yet renamed
    assert run(*again) == 0
    assert_same(whole, broken)
    left = {path.name for path in (broken / "checkpoints").iterdir()}
    assert left == {"step-00000044.pt", "step-00000045.pt"}, "nothing half-written stays behind"


def stop_with(number: int, folder: Path, *line: str) -> None:
    """Start a run, wait for its first step, and send a signal to all of its processes, as a terminal does."""
    before = len(metrics(folder)) if folder.exists() else 0
    start = [sys.executable, "-m", "unlabeled.cli.main", *line, "--out", str(folder)]
    pipes = {"stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(start, env=environment(), start_new_session=True, **pipes)
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) <= before:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "and saved; go on with: unlabeled toy pretrain --resume" in said


def test_signals_save_and_leave(whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    stop_with(signal.SIGINT, broken, *LINE, "--workers", "2")
    assert (broken / "encoder" / "encoder.json").exists(), "a stopped run leaves a usable encoder"
    stop_with(signal.SIGTERM, broken, "toy", "pretrain", "--resume")
    assert run("toy", "pretrain", "--resume", "--out", str(broken)) == 0
    assert_same(whole, broken)


def test_a_second_signal_is_obeyed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with Stopper() as stopper:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stopper.asked, left) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert left == [128 + signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_workers_and_batch_reading_change_nothing(whole: Path, tmp_path: Path) -> None:
    """Read one by one in two processes, or all at once in none: the same run."""
    assert run(*LINE, "--out", str(tmp_path / "run"), "--workers", "2", "--slow", "true") == 0
    assert_same(whole, tmp_path / "run")
