"""`pytest --unlabeled-plugin`: what is checked of whom, and the words of a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mutants.additions import ADDITIONS, HOOK
from unlabeled import plugins
from unlabeled.plugins import PluginError
from unlabeled.pytest_plugin import checks_of
from unlabeled.testing import check_plugin

HERE = Path(__file__).parent
MUTANT = """
from mutants.leaks import FirstAlwaysSeen
from strips import *
from unlabeled.hookspecs import hookimpl

@hookimpl
def unlabeled_encoders():
    return {"vit": StripViT, "leaky": FirstAlwaysSeen}
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
    """install(name, "module body", requires): each a distribution of its own, found here and by a new process."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    made: list[str] = []

    def put(name: str, body: str, requires: tuple[str, ...] = ()) -> Path:
        made.append(f"dist_{name.replace('-', '_')}")
        (path / f"{made[-1]}.py").write_text(body)
        info = path / f"{made[-1]}-1.0.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {made[-1]}\nVersion: 1.0", *[f"Requires-Dist: {r}" for r in requires]]
        (info / "METADATA").write_text("\n".join(lines))
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
    install("strips-again", HOOK)
    install("strips-cnn", ENCODER)
    by_again = {f"encoder {name} by method again" for name in ("vit", "leaky", "cnn2")}
    assert {what for what, _ in checks_of("strips-again", tmp_path)} == {"opens", *by_again}
    found = {what for what, _ in checks_of("strips-cnn", tmp_path)}
    others = {what for what in found if not what.startswith("encoder cnn2 by method ")}
    assert others == {"opens", "view crops", "encoder cnn2"}
    assert {f"encoder cnn2 by method {name}" for name in plugins.load("strips").methods} <= found


@pytest.mark.parametrize("name", ADDITIONS)
def test_mutant_distributions_are_caught_by_name(install: Install, tmp_path: Path, name: str) -> None:
    """By the option as one failure, by the function as an error, and both say whose it is and the way out."""
    body, requires, says = ADDITIONS[name]
    install("strips", MUTANT)
    install(f"strips-{name}", body, requires)
    [(what, check)] = checks_of(f"strips-{name}", tmp_path / "option")
    assert what == "opens"
    for broken in (check, lambda: check_plugin("strips", tmp_path / "function")):
        plugins.load.cache_clear()
        with pytest.raises(PluginError, match=re.escape(says)) as error:
            broken()
        assert f"strips-{name} of dist_strips_{name} 1.0" in str(error.value)
        assert f"UNLABELED_DISABLE=strips-{name}" in str(error.value) or "pip install" in str(error.value)


def test_an_addition_that_is_whole_is_not_caught(install: Install, tmp_path: Path) -> None:
    install("strips", MUTANT)
    install("strips-whole", HOOK, ("torch>=1", "numpy"))
    checks = dict(checks_of("strips-whole", tmp_path))
    checks["opens"]()
    checks["encoder vit by method again"]()
