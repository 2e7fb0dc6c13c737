"""What `unlabeled new-plugin` writes passes its own tests and trains before a line of it is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dists import installed
from unlabeled.cli.main import main


@pytest.mark.parametrize(
    ("line", "domain", "files"),
    [
        ("deep-sea --domain sonar", "sonar", {"readers", "views", "encoders", "recipes", "example", "__init__"}),
        ("pull --adds-to tabular", "tabular", {"terms", "__init__"}),
    ],
)
def test_a_new_plugin_passes_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, domain: str, files: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = line.split()[0]
    assert main(["new-plugin", *line.split()]) == 0
    folder = tmp_path / f"unlabeled-{name}"
    package = folder / "src" / f"unlabeled_{name.replace('-', '_')}"
    assert {path.stem for path in package.glob("*.py")} == files
    assert not [path for path in folder.rglob("*.*") if path.is_file() and "{{" in path.read_text()]
    assert (folder / ".github" / "workflows" / "test.yml").exists()
    installed(folder, folder / "src")
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
    assert b"2 passed" in done.stdout
    line = [sys.executable, "-m", "unlabeled.cli.main", "plugins"]
    listed = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"unlabeled-{name}" in listed
    assert domain in listed


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Sonar", "cannot be a plugin's name"),
        ("tabular", "there is a domain 'tabular' already"),
        ("pull --adds-to tabula", "no domain 'tabula' to add to; did you mean tabular"),
        ("sonar --domain So-nar", "cannot be a domain's name"),
        ("sonar --out there", "there exists and is not empty"),
    ],
)
def test_names_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    assert main(["new-plugin", *line.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine.txt"]
