"""The report, read back: what is drawn is what was logged, whatever names hold, and nothing comes from elsewhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from unlabeled.errors import UserError
from unlabeled.report.charts import MOST_POINTS, Axis, number, thin
from unlabeled.report.map import Source, of_instances
from unlabeled.report.page import flatten
from unlabeled.report.runs import read
from unlabeled.report.write import MOST_RUNS, report, write_at_end
from unlabeled.training.folder import RunFolder
from unlabeled.training.pretrain import pretrain

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Node(dict[str, Any]):
    """An element as read: attributes, what is inside, and its text."""

    def __init__(self, tag: str, attributes: list[tuple[str, str | None]]):
        super().__init__(attributes)
        self.tag, self.inside = tag, list[Node | str]()

    def every(self, tag: str, class_: str = "") -> Iterator[Node]:
        for one in self.inside:
            if isinstance(one, Node):
                if one.tag == tag and set(class_.split()) <= set((one.get("class") or "").split()):
                    yield one
                yield from one.every(tag, class_)

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.inside)


class Reader(HTMLParser):
    """A tree of elements; fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open = [Node("", [])]
        self.feed(text)
        self.close()
        assert len(self.open) == 1, f"{self.open[-1].tag} is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Node(tag, attrs)
        self.open[-1].inside.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def opened(path: Path) -> Node:
    return Reader(path.read_text()).open[0]


def figures(page: Node) -> dict[str, Node]:
    found = [one for one in page.every("figure") if any(one.every("path"))]
    return {next(one.every("figcaption")).inside[0]: one for one in found}  # type: ignore[misc]


def scale(figure: Node, axis: str) -> tuple[float, float]:
    """value = a + b × pixel, from the labels of an axis as an eye would take them."""
    place = "y" if axis == "y" else "x"
    ticks = [(float(tick[place]), float(tick.text.replace(",", ""))) for tick in figure.every("text", f"tick {axis}")]
    assert len(ticks) >= 2, "an axis with fewer than two figures cannot be read"
    (p, v), (q, w) = ticks[0], ticks[-1]
    slope = (w - v) / (q - p)
    return v - slope * p, slope


def drawn(figure: Node, path: Node) -> list[tuple[float, float]]:
    """(step, value) of a curve, read off the axes."""
    (a, b), (c, d) = scale(figure, "x"), scale(figure, "y")
    pixels = re.findall(r"(-?[\d.]+),(-?[\d.]+)", path["d"])
    return [(a + b * float(x), c + d * float(y)) for x, y in pixels]


LINES: list[dict[str, Any]] = [
    {"step": 0, "health/std": 0.6, "health/rank": 40.0, "health/dead": 0.0},
    {"step": 10, "epoch": 0, "loss": 5.9, "contrast/std": 0.7, "lr": 1e-3, "seconds": 2.0, "samples_per_second": 900.0},
    {
        "step": 20,
        "epoch": 0,
        "loss": 5.25,
        "contrast/std": 0.65,
        "lr": 7e-4,
        "seconds": 4,
        "samples_per_second": 1450.5,
    },
    {"step": 20, "health/std": 0.02, "health/rank": 17.5, "health/dead": 0.25},
    {
        "step": 30,
        "epoch": 1,
        "loss": 5.5,
        "contrast/std": 0.68,
        "lr": 2.5e-7,
        "seconds": 1.5,
        "samples_per_second": 1200,
    },
    {"step": 30, "health/std": 0.01, "health/rank": 9.25, "health/dead": 0.5},
]


def made(path: Path, lines: list[dict[str, Any]] = LINES, quarantine: Any = (), **config: Any) -> Path:
    """A run's folder as the loop leaves it, but for the encoder."""
    path.mkdir(parents=True)
    training = {"seed": 0, "batch_size": 32, "health_samples": 256, "lr": 1e-3, **config.pop("training", {})}
    method = {"name": "simclr", "terms": [{"name": "contrast", "temperature": 0.1}]}
    given = {"domain": "tabular", "data": "a.csv", "encoder": {"name": "mlp"}, "method": method, "training": training}
    (path / "config.yaml").write_text(yaml.safe_dump({**given, **config}))
    (path / "facts.json").write_text(json.dumps({"samples": 1000, "facts": {}}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if quarantine:
        (path / "quarantine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in quarantine))
    return path


def test_every_number_that_was_logged_is_on_a_curve(tmp_path: Path) -> None:
    page = opened(report([made(tmp_path / "run")]))
    titles = {
        "Loss": "loss",
        "Learning rate": "lr",
        "Throughput": "samples_per_second",
        "contrast/std": "contrast/std",
        "Spread of directions": "health/std",
        "Rank (RankMe)": "health/rank",
        "Dead dimensions": "health/dead",
    }
    found = figures(page)
    assert set(found) == set(titles)
    for title, name in titles.items():
        (path,) = found[title].every("path")
        logged = [(line["step"], line[name]) for line in LINES if name in line]
        read_off = np.array(drawn(found[title], path))
        room = np.ptp([value for _, value in logged]) or 1
        assert read_off[:, 0] == pytest.approx([step for step, _ in logged], abs=0.01)
        assert read_off[:, 1] == pytest.approx([value for _, value in logged], abs=2e-3 * room)
        hints = [hint.text for hint in found[title].every("circle", "hint")]
        assert hints == [f"run, step {step}: {value:.6g}" for step, value in logged]
        assert all(tick.text for tick in found[title].every("text", "name"))
    text = page.text
    assert "30 in 2 epochs" in text
    assert "5.5 s" in text, "4 s, then after a resume 1.5"
    assert "1,200" in text
    assert "a.csv (1,000 samples)" in text


def test_an_alarm_is_said_and_marked(tmp_path: Path) -> None:
    page = opened(report([made(tmp_path / "run")]))
    (box,) = page.every("div", "warn")
    assert box["role"] == "alert"
    assert "collapse at step 30: all samples get nearly the same embedding (spread 0.01, 0.6 before" in box.text
    for figure in figures(page).values():
        (mark,) = figure.every("line", "mark")
        a, b = scale(figure, "x")
        assert a + b * float(mark["x1"]) == pytest.approx(30, abs=0.01)
        assert mark.text == box.text
    healthy = [line for line in LINES if "loss" in line]
    assert not list(opened(report([made(tmp_path / "well", healthy)])).every("div", "warn"))
    gone = [LINES[0], {"step": 10}, {"step": 20}]  # what is not finite is not logged
    assert "embeddings are not finite" in opened(report([made(tmp_path / "gone", gone)])).text


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


NASTY = "<script>alert(\"1\")</script> & 'x' </title></style>"


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


def test_several_runs_lie_over_each_other(tmp_path: Path) -> None:
    higher = [{**line, **({"loss": line["loss"] + 1} if "loss" in line else {})} for line in LINES]
    runs = [made(tmp_path / "a"), made(tmp_path / "b", higher, training={"seed": 1, "lr": 0.5})]
    path = report(runs, tmp_path / "both.html")
    page = opened(path)
    loss = figures(page)["Loss"]
    paths = list(loss.every("path"))
    assert [one.text for one in paths] == ["a", "b"]
    assert len({one["class"] for one in paths}) == 2
    for one, added in zip(paths, (0, 1), strict=True):
        values = [value for _, value in drawn(loss, one)]
        assert values == pytest.approx([5.9 + added, 5.25 + added, 5.5 + added], abs=0.01)
    (legend,) = page.every("ul", "legend")
    assert [item.text.strip() for item in legend.every("li")] == ["a", "b"]
    assert [next(item.every("path"))["class"] for item in legend.every("li")] == [one["class"] for one in paths]
    differs = [[cell.text for cell in row.every("td")] for row in page.every("tr")]
    assert ["training.lr", "0.001", "0.5"] in differs
    assert ["training.seed", "0", "1"] in differs
    assert not [row for row in differs if row and row[0] == "training.batch_size"]
    assert "a: collapse at step 30" in page.text


def test_losses_of_different_methods_have_charts_of_their_own(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a"), made(tmp_path / "b", method={"name": "barlow"})]
    found = figures(opened(report(runs, tmp_path / "both.html")))
    assert [len(list(found[f"Loss, {method}"].every("path"))) for method in ("simclr", "barlow")] == [1, 1]
    assert len(list(found["Learning rate"].every("path"))) == 2


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [made(tmp_path / "x" / "run"), made(tmp_path / "y" / "run")]
    (legend,) = opened(report(runs, tmp_path / "page.html")).every("ul", "legend")
    assert [item.text.strip() for item in legend.every("li")] == [str(run) for run in runs]


def test_a_run_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    page = opened(report([made(tmp_path / "run", [])])).text
    assert "Nothing has been logged yet." in page
    assert "No map: " in page
    assert "holds no encoder yet" in page
    once = [LINES[0], LINES[1]]
    assert "Loss" in figures(opened(report([made(tmp_path / "one", once)]))), "a curve of one point"


def test_quarantine_is_listed_to_an_end(tmp_path: Path) -> None:
    broken = [{"index": n, "name": f"file-{n}", "reason": "OSError: torn"} for n in range(60)]
    page = opened(report([made(tmp_path / "run", quarantine=broken)]))
    cells = [cell.text for cell in page.every("td")]
    assert [f"file-{n}" in cells for n in (0, 49, 50)] == [True, True, False]
    assert "and 10 more in quarantine.jsonl" in page.text


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("config.yaml", None, "holds no run"),
        ("config.yaml", "version: 3\n", "is not the configuration of a run: it has no 'domain'"),
        ("config.yaml", "{", "is not YAML"),
        ("metrics.jsonl", "{broken}\n", "cannot be read as a run"),
        ("metrics.jsonl", '{"loss": 1}\n', "is not the log of a run"),
        ("quarantine.jsonl", "{broken}\n", "cannot be read as a run"),
    ],
)
def test_what_is_no_run_is_said_in_one_sentence(tmp_path: Path, file: str, text: str | None, sentence: str) -> None:
    run = made(tmp_path / "run")
    if text is None:
        (run / file).unlink()
    else:
        (run / file).write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        report([run])
    assert "\n" not in str(error.value)


def test_other_mistakes_are_said_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        report([tmp_path / "nowhere"])
    run = made(tmp_path / "run")
    with pytest.raises(UserError, match=f"cannot be told apart on one page; give at most {MOST_RUNS}"):
        report([run] * (MOST_RUNS + 1))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot save"):
        report([run], tmp_path / "folder")


# --- the map


def test_the_map_is_its_formula() -> None:
    """Against the eigenvectors of the covariance, and cosines in loops."""
    torch.manual_seed(1)
    x = torch.randn(40, 6) @ torch.diag(torch.tensor([3.0, 2.0, 1, 0.5, 0.2, 0.1])) + 5
    found = of_instances(x, [str(n) for n in range(40)])
    centred = (x.double() - x.double().mean(0)).numpy()
    values, vectors = np.linalg.eigh(centred.T @ centred)
    for axis in (0, 1):
        naive = centred @ vectors[:, -1 - axis]
        mine = np.array(found.points)[:, axis]
        assert np.abs(mine) == pytest.approx(np.abs(naive), abs=1e-9)
        assert abs(float(mine @ naive)) == pytest.approx(float(mine @ mine))
        assert found.shares[axis] == pytest.approx(values[-1 - axis] / values.sum())
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
    again = of_instances(x.clone(), [str(n) for n in range(40)])
    assert again == found


def test_one_direction_is_a_map_and_none_is_not() -> None:
    names = ["a", "b", "c", "d"]
    line = of_instances(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), names)
    assert [y for _, y in line.points] == [0.0] * 4
    assert line.shares == pytest.approx((1.0, 0.0))
    for instances, sentence in (
        (torch.full((4, 3), 0.1), "all samples have the same embedding"),
        (torch.full((4, 3), math.nan), "not finite"),
        (torch.zeros(2, 3), "needs 3 samples"),
    ):
        with pytest.raises(UserError, match=sentence):
            of_instances(instances, names[: len(instances)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run on a table of 60 rows."""
    folder = tmp_path_factory.mktemp("reported")
    random = np.random.default_rng(0)
    rows = [",".join(f"{value:.3f}" for value in row) for row in random.normal(size=(60, 3))]
    (folder / "table.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    encoder = {"name": "mlp", "width": 16}
    pretrain("tabular", str(folder / "table.csv"), "mae", out=folder / "run", encoder=encoder, steps=3, quiet=True)
    return folder / "run"


def dots(path: Path) -> list[str]:
    return [dot.text for dot in opened(path).every("circle", "dot")]


def test_the_map_shows_the_samples_held_out(run: Path, tmp_path: Path) -> None:
    from unlabeled.data.batches import held_out

    page = report([run], tmp_path / "page.html")
    source = Source.of(read(RunFolder(run), "run"))
    _, looked_at = held_out(source.reader, 256, 0)
    assert len(looked_at) == 6
    assert dots(page) == [source.reader.name(index) for index in looked_at.tolist()]
    opened_page = opened(page)
    assert "All names begin with table.csv:" in opened_page.text
    numbers = [text.text for text in opened_page.every("text", "number")]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    beside = opened(report([run, made(tmp_path / "other")], tmp_path / "two.html"))
    assert len(list(beside.every("circle", "dot"))) == 6
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
        data.write_text(kept + "1,2,3\n")
        text = opened(report([run], tmp_path / "page.html")).text
        assert "has 61 samples now and had 60 when the run began" in text
        data.unlink()
        page = opened(report([run], tmp_path / "page.html"))
        assert "No map: " in page.text
        assert "Loss" in figures(page)
    finally:
        data.write_text(kept)


# --- small things


def test_thinning_keeps_every_peak() -> None:
    random = np.random.default_rng(0)
    points = [(step, float(value)) for step, value in enumerate(random.normal(size=12_345))]
    points[777] = (777, 99.0)
    points[12_000] = (12_000, -99.0)
    kept = thin(points)
    assert len(kept) <= MOST_POINTS
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    assert {points[0], points[-1], (777, 99.0), (12_000, -99.0)} <= set(kept)
    assert thin(points[:1000]) == points[:1000]


@pytest.mark.parametrize("values", [[0.0], [3.0], [1e-9, 2e-9], [0.001, 0.00099], [-5, 1e6], [0.7, 0.70001]])
def test_axes_have_round_figures_inside(values: list[float]) -> None:
    axis = Axis.over(values, 200, 20)
    ticks = axis.ticks(4)
    assert 2 <= len(ticks) <= 9
    assert all(axis.low - 1e-9 <= tick <= axis.high * (1 + 1e-9) + 1e-12 for tick in ticks)
    assert all(20 <= axis(value) <= 200 for value in values)
    assert len({number(tick, 7) for tick in ticks}) == len(ticks), "labels tell ticks apart"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0002, "0.0002"), (5.336e-9, "5.3e-09"), (1050.1, "1,050"), (32561, "32,561"), (-2.5, "-2.5")],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_configuration_lies_flat() -> None:
    data = {"a": 1, "b": {"c": None, "d": [1, 2], "e": {}}, "f": [{"g": "x"}, {"g": "y"}]}
    flat = {"a": "1", "b.c": "none", "b.d": "1, 2", "b.e": "{}", "f.1.g": "x", "f.2.g": "y"}
    assert flatten(data) == flat
