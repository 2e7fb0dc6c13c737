"""The page stands alone, and whatever names hold is text."""

from __future__ import annotations

import re
from pathlib import Path

from pages import LINES, Reader, figures, made, opened
from unlabeled.report.write import report

NASTY = "<script>alert(\"1\")</script> & 'x' </title></style>"


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = report([made(tmp_path / "run", quarantine=[{"index": 1, "name": "b", "reason": "torn"}])]).read_text()
    page = Reader(text).open[0]
    assert not re.search(r"https?:|url\(|@import", text)
    assert not [one for tag in ("script", "link", "img", "iframe", "object") for one in page.every(tag)]
    everything = [one for tag in ("svg", "path", "div", "a", "use") for one in page.every(tag)]
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
        page = opened(report(chosen, tmp_path / "page.html"))
        assert not [*page.every("script"), *page.every("b")]
        cells = [cell.text for cell in page.every("td")]
        assert NASTY in cells
        assert any(name in cell for cell in cells) or len(chosen) == 1
        assert any("torn" in cell for cell in cells)
        assert NASTY in figures(page), "the title of the chart of a metric with that name"
