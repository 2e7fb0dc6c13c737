"""The page stands alone, and whatever names hold is text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pages import LINES, Reader, figures, made, opened
from unlabeled.evaluation.kept import keep
from unlabeled.evaluation.results import Result, Row
from unlabeled.report.labels import Labels
from unlabeled.report.map import Twins, of_instances
from unlabeled.report.page import page
from unlabeled.report.runs import read
from unlabeled.report.style import SCRIPT
from unlabeled.report.write import report
from unlabeled.training.folder import RunFolder

NASTY = "<script>alert(\"1\")</script> & 'x' </title></style>"


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = report([made(tmp_path / "run", quarantine=[{"index": 1, "name": "b", "reason": "torn"}])]).read_text()
    tree = Reader(text).open[0]
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [one for tag in ("script", "link", "img", "iframe", "object") for one in tree.every(tag)]
    everything = [one for tag in ("svg", "path", "div", "a", "use") for one in tree.every(tag)]
    assert not [one for one in everything if {"href", "src", "xlink:href", "onload"} & set(one)]
    assert "prefers-color-scheme: dark" in text
    assert 'charset="utf-8"' in text
    assert len(text) < 60_000


def test_whatever_a_user_wrote_is_text(tmp_path: Path) -> None:
    name = '<b onclick="x">&amp;'
    config = {"data": NASTY, "encoder": {"name": NASTY, NASTY: [NASTY]}, "method": {"name": NASTY}}
    lines = [{**line, NASTY: 1.0} for line in LINES]
    broken = [{"index": 1, "name": NASTY, "reason": NASTY}, {"index": 2, "name": "\udcff torn", "reason": "x"}]
    runs = [made(tmp_path / name, lines, broken, **config), made(tmp_path / "other", training={"seed": 1})]
    for chosen in (runs[:1], runs):
        tree = opened(report(chosen, tmp_path / "page.html"))
        assert not [*tree.every("script"), *tree.every("b")]
        cells = [cell.text for cell in tree.every("td")]
        assert NASTY in cells
        assert any(name in cell for cell in cells) or len(chosen) == 1
        assert any("torn" in cell for cell in cells)
        assert NASTY in figures(tree), "the title of the chart of a metric with that name"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all that it can hold, all of it hostile."""
    count = 40
    vectors = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    found = of_instances(vectors, [f"{NASTY} {number}" for number in range(count)])
    labels = Labels(NASTY, [NASTY, "b"] * (count // 2), [NASTY])
    pictures = [np.full((4, 4), number, np.uint8) for number in range(count)]
    fields = [{NASTY: NASTY}] * count
    twins = [Twins((0, 1), 0.9999, True)]
    found = replace(found, labels=labels, pictures=pictures, fields=fields, twins=twins, said=[NASTY])
    run = made(tmp_path_factory.mktemp("whole") / "run")
    row = Row(f"trained {NASTY}", NASTY, NASTY, (0.5, 0.6), interval=(0.4, 0.7))
    asked = {"protocol": NASTY, "ood": NASTY}
    keep(
        Result(
            (row,), NASTY, NASTY, NASTY, 2, None, 3, 4, (), NASTY, NASTY, (str(run),), warnings=(NASTY,), asked=asked
        )
    )
    shown = read(RunFolder(run), "run")
    assert len(shown.results) == 1
    return page([shown], [found]) + page([shown], [replace(found, pictures=None)])


def test_a_page_with_all_parts_needs_no_network(whole: str) -> None:
    for text in whole.split("<!doctype html>\n")[1:]:
        tree = Reader("<!doctype html>\n" + text).open[0]
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(|innerHTML|eval\(", text)
        for one in tree.all():
            assert not {"href", "xlink:href", "srcset"} & set(one)
            assert not [name for name in one if name.startswith("on")]
            assert re.fullmatch(r"data:image/png;base64,[\w+/=]+", one.get("src", "data:image/png;base64,A"))
            assert one.tag not in ("link", "iframe", "object", "base", "form")
        (script,) = tree.every("script")
        assert script.text == SCRIPT


def test_names_labels_and_cells_of_samples_are_text(whole: str) -> None:
    pictures, rows = (Reader("<!doctype html>\n" + text).open[0] for text in whole.split("<!doctype html>\n")[1:])
    dot = next(pictures.every("circle", "dot"))
    assert dot["data-text"].splitlines() == [f"{NASTY} 0", f"label: {NASTY}", f"{NASTY}: {NASTY}"]
    assert dot.text == f"{NASTY} 0"
    assert any(NASTY in item.text for ul in pictures.every("ul", "legend") for item in ul.every("li"))
    assert any(NASTY in card.text for card in pictures.every("div", "sample"))
    assert NASTY in [cell.text for cell in rows.every("td")]
    assert NASTY in [cell.text for cell in rows.every("th")]
    (section,) = rows.every("section", "result")
    assert f"{NASTY} by {NASTY}" in section.text
    assert NASTY in next(section.every("div", "warn")).text


def test_without_the_script_the_page_says_all(whole: str) -> None:
    """Nothing is hidden before a script runs, and every sample has its name."""
    for text in whole.split("<!doctype html>\n")[1:]:
        tree = Reader("<!doctype html>\n" + text).open[0]
        assert not [one for one in tree.all() if "hidden" in one or "display: none" in one.get("style", "")]
        assert all(next(dot.every("title")).text for dot in tree.every("circle", "dot"))
