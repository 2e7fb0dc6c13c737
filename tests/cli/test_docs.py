"""What the README tells a newcomer to type is typed here, word for word."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from unlabeled import plugins
from unlabeled.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "methods.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def read_method(run: Path) -> object:
    """What a run trained by, but for its name."""
    return {**yaml.safe_load((run / "config.yaml").read_text())["method"], "name": ""}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = plugins.load("tabular").examples(tmp_path / "example")[0]
    shutil.copy(table, tmp_path / "people.csv")
    shutil.copy(table, tmp_path / "new.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


DOMAINS = ["medical", "eo", "audio", "graph"]  # that the README trains in by a line


def commands(domain: str) -> list[list[str]]:
    """The README's lines for a domain, as arguments; there are none of others than those tested here."""
    lines = [line.partition("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    mine = [line[1:] for line in lines if line[:1] == ["unlabeled"]]
    assert {line[0] for line in mine} == {"tabular", *DOMAINS}
    return [line for line in mine if line[0] == domain]


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    mine = commands("tabular")
    assert [line[1] for line in mine] == ["inspect", "pretrain", "pretrain", "evaluate", "embed"]
    for line in mine:
        assert main(line) == 0, line
    assert (folder / "new.parquet").exists()


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_readme_trains_in_every_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    """On the example of the domain, a dozen samples of which one is broken."""
    monkeypatch.chdir(tmp_path)
    (line,) = commands(domain)
    source, out = line[2], line[line.index("--out") + 1]
    Path(plugins.load(domain).examples(tmp_path / "example")[0]).rename(source)
    assert main([*line, "--steps", "2", "--batch-size", "4", "--max-broken", "0.2"]) == 0
    assert (tmp_path / out / "encoder").exists()


def test_the_python_of_the_readme_runs(folder: Path) -> None:
    (block,) = blocks("python")
    names: dict[str, object] = {}
    exec(block, names)
    assert names["encoder"].width == 64  # type: ignore[attr-defined]


def test_the_page_of_methods_has_the_table_and_its_python_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", "--markdown"]) == 0
    assert f"<!-- table: unlabeled methods --markdown -->\n{capsys.readouterr().out}<!-- end -->" in PAGE
    (block,) = blocks("python", PAGE)
    assert len(block.splitlines()) <= 12
    exec(block, {})
    assert (folder / "runs" / "mine" / "encoder").exists()
    shutil.copy(folder / "people.csv", folder / "more.csv")
    shutil.move(folder / "runs" / "mine", folder / "runs" / "python")
    lines = [line for block in blocks("sh", PAGE) for line in block.replace("\\\n", " ").splitlines()]
    assert len(lines) == 5
    for line in lines:
        assert main([*shlex.split(line)[1:], "--steps", "2"]) == 0, line
    assert read_method(folder / "runs" / "mine") == read_method(folder / "runs" / "python")


def test_the_readme_names_every_family_and_file_of_a_run(folder: Path) -> None:
    assert main(["tabular", "pretrain", "people.csv", "--method", "mae", "--steps", "2", "--out", "run"]) == 0
    for path in (folder / "run").iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in README
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / link).exists(), link


@pytest.mark.parametrize("name", ["evaluation", "report"])
def test_the_pages_on_evaluation_and_reports_run(folder: Path, name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    lines = [line.partition("#")[0] for block in blocks("sh", page) for line in block.splitlines()]
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    for block in blocks("python", page):
        exec(block, {})
