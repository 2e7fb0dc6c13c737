"""`pytest --unlabeled-plugin`: what is checked of whom, and the words of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unlabeled import plugins
from unlabeled.plugins import PluginError
from unlabeled.pytest_plugin import checks_of

HERE = Path(__file__).parent
MUTANT = """
from mutants.leaks import FirstAlwaysSeen
from strips import *
from unlabeled.hookspecs import hookimpl

@hookimpl
def unlabeled_encoders():
    return {"vit": StripViT, "leaky": FirstAlwaysSeen}
"""
METHOD = """
from unlabeled.hookspecs import hookimpl
from unlabeled.methods import METHODS

@hookimpl
def unlabeled_methods():
    return {"again": METHODS["simclr"]}
"""
ENCODER = """
from strips import StripCNN
from unlabeled.hookspecs import hookimpl

@hookimpl
def unlabeled_encoders():
    return {"cnn2": StripCNN}
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install(name="module body"): each a distribution of its own, found here and by a new process."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    made: list[str] = []

    def put(name: str, body: str) -> Path:
        made.append(f"dist_{name.replace('-', '_')}")
        (path / f"{made[-1]}.py").write_text(body)
        info = path / f"{made[-1]}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {made[-1]}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[unlabeled]\n{name} = {made[-1]}\n")
        plugins.load.cache_clear()
        return path

    yield put
    plugins.load.cache_clear()
    for module in made:
        sys.modules.pop(module, None)


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in an empty project."""
    project = path.parent / "project"
    project.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True)


def test_a_mutant_fails_by_the_promise_that_it_breaks_and_nothing_else_does(install: Install) -> None:
    path = install("strips", MUTANT)
    done = run(path, "--unlabeled-plugin", "strips", "-v", "-k", "not method or simclr")
    assert done.returncode == 1, done.stdout + done.stderr
    results = {line.partition(" [")[0].strip() for line in done.stdout.splitlines() if line.startswith("unlabeled-")}
    node = "unlabeled-plugin::strips::"
    assert results == {
        f"{node}opens PASSED",
        f"{node}reader npy PASSED",
        f"{node}view crops PASSED",
        f"{node}encoder vit PASSED",
        f"{node}encoder leaky FAILED",
        f"{node}encoder vit by method simclr PASSED",
        f"{node}encoder leaky by method simclr PASSED",
    }
    assert "encoder 'leaky' breaks promise E9: values at hidden places reach no output." in done.stdout
    assert "(docs/plugins.md, E9; unlabeled.contract.Encoder)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "leaks.py" not in done.stdout, "a promise needs no traceback"


def test_a_name_that_is_none_is_refused_with_the_nearest(install: Install) -> None:
    done = run(install("strips", MUTANT), "--unlabeled-plugin", "strip")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no plugin of unlabeled is called 'strip'; did you mean strips?" in done.stderr


def test_of_an_add_on_what_it_adds(install: Install, tmp_path: Path) -> None:
    install("strips", MUTANT)
    install("strips-again", METHOD)
    install("strips-cnn", ENCODER)
    by_again = {f"encoder {name} by method again" for name in ("vit", "leaky", "cnn2")}
    assert {what for what, _ in checks_of("strips-again", tmp_path)} == {"opens", *by_again}
    found = {what for what, _ in checks_of("strips-cnn", tmp_path)}
    others = {what for what in found if not what.startswith("encoder cnn2 by method ")}
    assert others == {"opens", "view crops", "encoder cnn2"}
    assert {f"encoder cnn2 by method {name}" for name in plugins.load("strips").methods} <= found


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("from nowhere_at_all import something", "needs 'nowhere_at_all', which is not installed"),
        (METHOD.replace("unlabeled_methods", "unlabeled_method"), "which is no hook; did you mean unlabeled_methods"),
        (METHOD.replace('METHODS["simclr"]', "1 / 0"), "fails in unlabeled_methods: ZeroDivisionError"),
        (METHOD.replace('"again"', '"mae"'), "'mae' is claimed by both the core and strips-odd"),
    ],
)
def test_what_cannot_be_opened_is_one_failure(install: Install, tmp_path: Path, body: str, says: str) -> None:
    install("strips", MUTANT)
    install("strips-odd", body)
    [(what, check)] = checks_of("strips-odd", tmp_path)
    assert what == "opens"
    with pytest.raises(PluginError, match=says):
        check()
