"""The toy domain, found as any third party's plugin is: by the metadata of its distribution."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unlabeled.training.folder import TIMING

TOY = str(Path(__file__).parent / "toy")
SMALL = {"epochs": 1, "batch_size": 64, "log_every": 5, "seed": 3}


@pytest.fixture(autouse=True)
def toy_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from unlabeled import plugins

    monkeypatch.syspath_prepend(TOY)
    monkeypatch.setenv("PYTHONPATH", TOY)
    plugins.load.cache_clear()
    yield
    plugins.load.cache_clear()


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `unlabeled ...` in a process of its own."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "unlabeled.cli.main", *arguments]
        return subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, timeout=200, env=environment(), **options
        )

    return run


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what measures the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def environment() -> dict[str, str]:
    """For processes that know the toy domain; one thread, as several of them share few cores."""
    return {**os.environ, "PYTHONPATH": TOY, "OMP_NUM_THREADS": "1"}
