"""The map: its formula, the samples on it, and what its absence costs."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree.ElementTree import tostring

import numpy as np
import pytest
import torch

from pages import Reader, figures, made, opened, scale
from unlabeled.errors import UserError
from unlabeled.report.map import Layout, of_instances
from unlabeled.report.runs import read
from unlabeled.report.samples import Source
from unlabeled.report.scatter import scatter
from unlabeled.report.write import report, write_at_end
from unlabeled.training.folder import RunFolder


def cosine_of(rows: Any) -> Any:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_the_map_is_its_formula() -> None:
    """Against the eigenvectors of the covariance, and cosines in loops."""
    torch.manual_seed(1)
    x = torch.randn(40, 6) @ torch.diag(torch.tensor([3.0, 2.0, 1, 0.5, 0.2, 0.1])) + 5
    found = of_instances(x, [str(n) for n in range(40)])
    (layout,) = found.layouts
    centred = (x.double() - x.double().mean(0)).numpy()
    values, vectors = np.linalg.eigh(centred.T @ centred)
    for axis in (0, 1):
        naive = centred @ vectors[:, -1 - axis]
        mine = np.array(layout.points)[:, axis]
        assert np.abs(mine) == pytest.approx(np.abs(naive), abs=1e-9)
        assert abs(float(mine @ naive)) == pytest.approx(float(mine @ mine))
        share = values[-1 - axis] / values.sum()
        assert layout.axes[axis] == f"principal direction {axis + 1} ({share:.0%} of the variance)"
    assert [query for query, _ in found.near] == [0, 7, 15, 23, 31, 39]
    for query, near in found.near:
        cosines = {
            other: float(
                centred[query] @ centred[other] / np.linalg.norm(centred[query]) / np.linalg.norm(centred[other])
            )
            for other in range(40)
            if other != query
        }
        best = sorted(cosines, key=lambda other: -cosines[other])[:5]
        assert [other for other, _ in near] == best
        assert [cosine for _, cosine in near] == pytest.approx([cosines[other] for other in best])
    for place, (other, distance) in enumerate(found.apart):
        cosines = np.delete(cosine_of(centred)[other], other)
        assert distance == pytest.approx(1 - np.sort(cosines)[-5:].mean())
        assert place == 0 or distance <= found.apart[place - 1][1]
    least = min(distance for _, distance in found.apart)
    shown = {other for other, _ in found.apart}
    for other in set(range(40)) - shown:
        assert 1 - np.sort(np.delete(cosine_of(centred)[other], other))[-5:].mean() <= least + 1e-9
    again = of_instances(x.clone(), [str(n) for n in range(40)])
    assert again == found


def test_one_direction_is_a_map_and_none_is_not() -> None:
    names = ["a", "b", "c", "d"]
    line = of_instances(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), names)
    assert [y for _, y in line.layouts[0].points] == [0.0] * 4
    assert "100%" in line.layouts[0].axes[0]
    assert "0%" in line.layouts[0].axes[1]
    for instances, sentence in (
        (torch.full((4, 3), 0.1), "all samples have the same embedding"),
        (torch.full((4, 3), math.nan), "not finite"),
        (torch.zeros(2, 3), "needs 3 samples"),
    ):
        with pytest.raises(UserError, match=sentence):
            of_instances(instances, names[: len(instances)])


def dots(path: Path) -> list[str]:
    return [dot.text for dot in opened(path).every("circle", "dot")]


def test_the_map_shows_the_samples_looked_at(run: Path, tmp_path: Path) -> None:
    from unlabeled.data.batches import held_out

    page = report([run], tmp_path / "page.html")
    source = Source.of(read(RunFolder(run), "run"))
    _, looked_at = held_out(source.reader, 256, 0)
    assert len(looked_at) == 60, "a tenth of so few would be no map"
    assert dots(page) == [source.reader.name(index) for index in looked_at.tolist()]
    opened_page = opened(page)
    assert "All names begin with table.csv:" in opened_page.text
    numbers = [text.text for text in opened_page.every("text", "number")]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    beside = opened(report([run, made(tmp_path / "other")], tmp_path / "two.html"))
    assert len(list(beside.every("circle", "dot"))) == 60
    assert not list(beside.every("text", "number")), "numbers mean nothing without the table of neighbours"
    assert "holds no encoder yet" in beside.text
    without = opened(report([run], tmp_path / "without.html", maps=False)).text
    assert "No map: the report was written without one." in without


def test_at_the_end_of_a_run_the_page_is_the_same(run: Path, tmp_path: Path) -> None:
    """Written from what the run holds in memory, and by command from its folder."""

    def content(path: Path) -> str:
        return re.sub(r"<footer>.*</footer>", "", path.read_text())

    by_itself = content(run / "report.html")
    source = Source.of(read(RunFolder(run), "run"))
    source.encoder.train()
    said: list[str] = []
    write_at_end(RunFolder(run), source, said.append)
    assert said == []
    assert source.encoder.training, "the encoder is as it was"
    assert content(run / "report.html") == by_itself
    assert by_itself == content(report([run], tmp_path / "page.html"))


def test_a_report_that_cannot_be_written_is_a_warning(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(made(tmp_path / "run"))
    folder.report.mkdir()
    said: list[str] = []
    write_at_end(folder, Source.of(read(RunFolder(run), "run")), said.append)
    assert len(said) == 1
    assert said[0].startswith("warning: no report.html was written: cannot save")


def test_data_that_cannot_be_read_cost_the_map_alone(run: Path, tmp_path: Path) -> None:
    data = run.parent / "table.csv"
    kept = data.read_text()
    try:
        data.write_text(kept + "1,2,3,odd,7\n")
        text = opened(report([run], tmp_path / "page.html")).text
        assert "has 61 samples now and had 60 when the run began" in text
        data.unlink()
        page = opened(report([run], tmp_path / "page.html"))
        assert "No map: " in page.text
        assert "Loss" in figures(page)
    finally:
        data.write_text(kept)


def test_umap_is_asked_for_by_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the library, which is slow and need not be there."""
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r'UMAP needs umap-learn: pip install "unlabeled\[report\]"'):
        report([run], tmp_path / "page.html", layout="umap")
    with pytest.raises(UserError, match="did you mean umap"):
        report([run], tmp_path / "page.html", layout="umapp")  # type: ignore[arg-type]
    asked: dict[str, Any] = {}

    class Stand:
        def __init__(self, **options: Any):
            asked.update(options)

        def fit_transform(self, x: Any) -> Any:
            return x[:, :2] * [1, -3]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand))
    x = torch.randn(30, 4)
    both = of_instances(x, list(map(str, range(30))), "both")
    assert [layout.title for layout in both.layouts] == ["Principal component analysis", "UMAP"]
    centred = (x.double() - x.double().mean(0)).numpy()
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.array(both.layouts[1].points) == pytest.approx(unit[:, :2] * [1, -3])
    assert asked == {"n_neighbors": 15, "metric": "cosine", "random_state": 0, "n_jobs": 1}
    assert [one.title for one in of_instances(x, both.names, "umap").layouts] == ["UMAP"]
    page = opened(report([run], tmp_path / "page.html", layout="both"))
    maps = list(page.every("svg", "samples"))
    assert [len(list(one.every("circle", "dot"))) for one in maps] == [60, 60]
    assert [len([dot for dot in one.every("circle", "dot") if "data-text" in dot]) for one in maps] == [60, 0]


def test_what_is_asked_of_the_map_needs_one(run: Path, tmp_path: Path) -> None:
    for more in ({"label": "kind"}, {"data": "x.csv"}, {"layout": "both"}):
        with pytest.raises(UserError, match="are of the map; leave them out, or --no-map"):
            report([run], tmp_path / "page.html", maps=False, **more)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"nowhere\.csv does not exist"):
        report([run], tmp_path / "page.html", data="nowhere.csv")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (20.0, 1.0), (1.0, 0.0), (1.0, 3.0)])
def test_dots_lie_where_the_axes_say_and_at_one_scale(stretch: tuple[float, float]) -> None:
    points = np.random.default_rng(0).normal(size=(50, 2)) * stretch
    layout = Layout("a", points.tolist(), ("x", "y"))
    found = replace(of_instances(torch.randn(50, 3), list(map(str, range(50)))), layouts=[layout])
    svg = Reader(tostring(scatter(found, layout, None, numbered=True), encoding="unicode")).open[0]
    (a, b), (c, d) = scale(svg, "x"), scale(svg, "y")
    assert b == pytest.approx(-d, rel=0.02), "as far across as up"
    dots = [(float(dot["cx"]), float(dot["cy"])) for dot in svg.every("circle", "dot")]
    read = [(a + b * x, c + d * y) for x, y in dots]
    assert np.array(read) == pytest.approx(points, abs=0.02 * np.ptp(points))
    _, _, width, height = map(float, next(svg.every("svg"))["viewbox"].split())
    assert all(0 < x < width and 0 < y < height - 30 for x, y in dots)
    numbers = [(float(one["cx"]), float(one["cy"])) for one in svg.every("circle", "query")]
    assert numbers == [dots[query] for query, _ in found.near]
