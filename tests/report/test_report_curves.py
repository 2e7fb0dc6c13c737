"""What is drawn is what was logged; what is no run is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pages import LINES, drawn, figures, made, opened, scale
from unlabeled.errors import UserError
from unlabeled.report.charts import MOST_POINTS, Axis, number, thin
from unlabeled.report.page import flatten
from unlabeled.report.write import MOST_RUNS, report


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
