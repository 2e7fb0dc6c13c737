"""docs/tutorial.md is typed here, block by block: files are written, commands run, what they say is compared."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dists import installed
from unlabeled import plugins
from unlabeled.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
EXAMPLE = ROOT / "examples" / "unlabeled-timeseries"
BLOCK = re.compile(r"^(?:<!-- (.+?) -->\n)?```(\w+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)

Block = tuple[str, str, str]  # mark, language, text


def blocks() -> list[Block]:
    return BLOCK.findall(PAGE)


def replaced(module: str, functions: str) -> str:
    """A module with functions of these names in place of its own."""
    lines = module.splitlines()
    new = {node.name: ast.unparse(node) for node in ast.parse(functions).body if isinstance(node, ast.FunctionDef)}
    for node in reversed(ast.parse(module).body):
        if isinstance(node, ast.FunctionDef) and node.name in new:
            lines[node.decorator_list[0].lineno - 1 : node.end_lineno] = new.pop(node.name).splitlines()
    assert not new, f"the skeleton has no {sorted(new)}"
    return "\n".join(lines) + "\n"


def write(mark: str, text: str) -> None:
    """A block with the mark "file: PATH", "more of: PATH" or "in: PATH"."""
    how, path = mark.split(": ")
    file = Path(path)
    if how == "file":
        file.write_text(text + "\n")
    elif how == "more of":
        file.write_text(f"{file.read_text()}\n\n{text}\n")
    else:
        assert how == "in", mark
        file.write_text(replaced(file.read_text(), text))


def run(line: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command; what it is said to say, if anything, is a failure of pytest."""
    name, *arguments = shlex.split(line)
    if name == "cd":
        monkeypatch.chdir(arguments[0])
    elif name == "pip":
        installed(Path.cwd(), Path("src"))
        monkeypatch.syspath_prepend(Path("src").resolve())
        plugins.load.cache_clear()
    elif name == "unlabeled":
        assert main(arguments) == 0, line
    else:
        start = {"pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"], "python": []}[name]
        environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *start, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == (1 if says else 0), done.stdout + done.stderr
        assert all(part in done.stdout for part in says.splitlines()), done.stdout


@pytest.fixture
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    plugins.load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "unlabeled_timeseries"]:
        del sys.modules[name]


@pytest.mark.usefixtures("_clean")
def test_the_tutorial_can_be_typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = ""
    nothing: Block = ("", "", "")
    for (mark, language, text), after in pairwise([*blocks(), nothing]):
        if language == "python":
            write(mark, text)
        elif language == "toml":
            assert text in Path("pyproject.toml").read_text() + (EXAMPLE / "pyproject.toml").read_text()
        elif language == "sh":
            says = after[2] if after[:2] == ("", "text") else ""
            for line in text.splitlines():
                run(line, says, monkeypatch)
            said += capsys.readouterr().out
    compare(said)
    for name in ("example", "readers", "encoders", "views"):
        path = Path("src", "unlabeled_timeseries", f"{name}.py")
        assert path.read_text() == (EXAMPLE / path).read_text(), f"{path} of the tutorial is not that of the example"


def compare(said: str) -> None:
    """The table of the evaluation has the rows that the page shows, and the trained encoder is the better one."""
    [(_, _, measured)] = [block for block in blocks() if block[0] == "measured"]
    table = said[said.index("label folder") :].splitlines()
    assert [line.split()[0] for line in measured.splitlines()] == [line.split()[0] for line in table[:5]]
    trained, untrained = (float(re.findall(r"\d\.\d+", line)[0]) for line in table[2:4])
    assert trained > untrained + 0.05
