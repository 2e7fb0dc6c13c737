"""A run to export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import unlabeled
from unlabeled import plugins


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv and a run on it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(plugins.load("tabular").examples(folder / "example")[0], folder / "people.csv")
    unlabeled.pretrain("tabular", str(folder / "people.csv"), "simclr", out=folder / "run", steps=2, quiet=True)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, beside which one may write."""
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"
