"""Results beside their runs, and on the page: every number, its baselines, and runs compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pages import Node, made, opened
from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.evaluation.kept import keep, read_kept
from unlabeled.evaluation.results import Result, Row
from unlabeled.report.write import report

ASKED = {"protocol": "probe", "label": "kind", "shots": ["100%"], "seeds": [0, 1]}


def result(runs: Sequence[Path], rows: Sequence[Row], **more: Any) -> Result:
    asked = {**ASKED, **more.pop("asked", {})}
    about: dict[str, Any] = {"split": "random fifth held out, seeds 0, 1", "warnings": (), "asked": asked, **more}
    return Result(tuple(rows), "a.csv", None, "kind", 2, 0.625, 80, 20, runs=tuple(map(str, runs)), **about)


def rows(trained: Sequence[float], untrained: Sequence[float] = (0.5, 0.6)) -> list[Row]:
    return [
        Row("trained (simclr)", "linear", "accuracy", tuple(trained), interval=(0.71, 0.93)),
        Row("untrained", "linear", "accuracy", tuple(untrained), interval=(0.44, 0.66)),
        Row("raw", "linear", "accuracy", (0.75,), interval=(0.7, 0.8)),
    ]


def cells(page: Node, number: int = 0) -> list[list[str]]:
    table = list(page.every("table", "figures"))[number]
    return [[cell.text.strip() for cell in row.every("td")] for row in table.every("tr") if list(row.every("td"))]


def said(values: Sequence[float], interval: str = "") -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}{interval}"


def test_every_number_stands_beside_its_baselines(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    keep(result([run], rows([0.8, 0.9]), warnings=("3 of 20 test samples were <seen>",)))
    page = opened(report([run]))
    (section,) = page.every("section", "result")
    assert cells(page) == [
        ["trained (simclr)", said([0.8, 0.9], "[0.710, 0.930]")],
        ["untrained", said([0.5, 0.6], "[0.440, 0.660]")],
        ["raw", "0.7500[0.700, 0.800]"],
        ["always the commonest class", "0.6250"],
    ]
    (box,) = section.every("div", "warn")
    assert box["role"] == "alert"
    assert box.text == "3 of 20 test samples were <seen>"
    assert "kind by probe" in section.text
    assert "Fitted on 80 samples of a.csv; 20 tested on; split: random fifth held out, seeds 0, 1" in section.text


def read_off(figure: Node) -> tuple[dict[str, tuple[float, ...]], list[float]]:
    """Means and intervals by name as an eye takes them, and upright lines."""
    ticks = [(float(one["x"]), float(one.text)) for one in figure.every("text", "tick x")]
    (p, v), (q, w) = ticks[0], ticks[-1]

    def value(x: str) -> float:
        return v + (float(x) - p) / (q - p) * (w - v)

    names = {one["y"]: one.inside[0].text for one in figure.every("text", "tick y")}  # type: ignore[union-attr]
    means = {names[one["cy"]]: value(one["cx"]) for one in figure.every("circle", "mean")}
    bars = {names[one["y1"]]: (value(one["x1"]), value(one["x2"])) for one in figure.every("line", "band")}
    lines = [value(one["x1"]) for one in figure.every("line", "line")]
    return {name: (mean, *bars.get(name, ())) for name, mean in means.items()}, lines


def test_a_chart_shows_means_and_intervals(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    keep(result([run], rows([0.8, 0.9])))
    (figure,) = next(opened(report([run])).every("section", "result")).every("figure")
    found, lines = read_off(figure)
    wanted = {"trained (simclr)": (0.85, 0.71, 0.93), "untrained": (0.55, 0.44, 0.66), "raw": (0.75, 0.7, 0.8)}
    assert set(found) == set(wanted)
    for name, numbers in wanted.items():
        assert found[name] == pytest.approx(numbers, abs=2e-3)
    assert lines == pytest.approx([0.625], abs=2e-3), "the commonest class"
    keep(result([run], [replace(row, interval=(0.74, 0.76), values=(0.75,)) for row in rows([1])]))
    (figure,) = next(opened(report([run])).every("section", "result")).every("figure")
    assert read_off(figure)[1] == [], "what would press all else together is in the table alone"


def test_parts_of_the_labels_have_lines_of_their_own(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    few = [replace(row, shots="10%", n=8, values=(0.4,)) for row in rows([1])]
    keep(result([run], [*few, *(replace(row, n=80) for row in rows([0.8, 0.9]))]))
    page = opened(report([run]))
    found = cells(page)
    assert [row[:2] for row in found[:2]] == [["trained (simclr)", "10% (8)"], ["trained (simclr)", "100% (80)"]]
    assert found[0][2].startswith("0.4000")
    assert found[1][2].startswith("0.8500")


def test_runs_are_compared_where_they_were_asked_the_same(tmp_path: Path) -> None:
    a, b, c = (made(tmp_path / name, training={"seed": n}) for n, name in enumerate("abc"))
    keep(result([a], rows([0.8, 0.9])))
    keep(result([b], rows([0.7, 0.72], (0.3, 0.4)), warnings=("odd",)))
    keep(result([a], rows([0.1, 0.2]), asked={"shots": ["1%"]}))
    page = opened(report([a, b, c], tmp_path / "page.html"))
    assert len(list(page.every("section", "result"))) == 2
    tables = {len(cells(page, 0)): cells(page, 0), len(cells(page, 1)): cells(page, 1)}
    assert tables[6] == [
        ["a", said([0.8, 0.9], "[0.710, 0.930]")],
        ["b", said([0.7, 0.72], "[0.710, 0.930]")],
        ["untrained, a", said([0.5, 0.6], "[0.440, 0.660]")],
        ["untrained, b", said([0.3, 0.4], "[0.440, 0.660]")],
        ["raw", "0.7500[0.700, 0.800]"],
        ["always the commonest class", "0.6250"],
    ]
    assert tables[4][0] == ["a", said([0.1, 0.2], "[0.710, 0.930]")]
    assert "Not asked of c." in page.text
    assert "Not asked of b, c." in page.text
    assert "b: odd" in page.text


def test_a_result_over_several_runs_gives_each_its_own_values(tmp_path: Path) -> None:
    runs = [made(tmp_path / name) for name in "ab"]
    both = result(runs, rows([0.8, 0.9, 0.1, 0.2]))
    assert len(keep(both)) == 2
    page = opened(report(runs, tmp_path / "page.html"))
    assert cells(page)[:2] == [["a", said([0.8, 0.9])], ["b", said([0.1, 0.2])]], "without the interval of both"
    keep(result(runs[1:], rows([0.6, 0.7])))
    assert len(read_kept(runs[1])[0]) == 2, "another question, which writes over no answer"
    again = cells(opened(report(runs, tmp_path / "page.html")))
    assert again[1] == ["b", said([0.6, 0.7], "[0.710, 0.930]")], "asked alone is the better answer"
    alone = opened(report(runs[:1])).text
    assert f"mean over 2 runs: {runs[0]}, {runs[1]}" in alone


def test_a_question_keeps_its_file(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (one,) = keep(result([run], rows([0.8, 0.9])))
    (again,) = keep(result([run], rows([0.1, 0.2]), commit="later"))
    assert one == again
    assert one.parent == run / "results"
    assert one.name.startswith("probe-kind-")
    others = [
        keep(result([run], rows([1, 1]), asked={name: value}))[0]
        for name, value in (("seeds", [5]), ("shots", ["1%"]), ("test", "b.csv"), ("budget", {"epochs": 3}))
    ]
    assert len({one, *others}) == 5
    kept, broken = read_kept(run)
    assert broken == []
    assert len(kept) == 5
    (mine,) = [found for found in kept if found.path == one]
    assert mine.result == result([run], rows([0.1, 0.2]), commit="later"), "all of it is read back"
    (odd,) = keep(replace(result([run], rows([1, 1])), label="../../<a b>\0" + "x" * 300))
    assert odd.parent == run / "results"
    assert len(odd.name) < 80


def test_no_result_is_said_with_the_way_to_one(tmp_path: Path) -> None:
    assert "unlabeled tabular evaluate RUN DATA --label L" in opened(report([made(tmp_path / "run")])).text


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": [{}]}', '{"rows": [], "train": 3}', "\udcff"])
def test_a_damaged_result_costs_itself_alone(tmp_path: Path, text: str) -> None:
    run = made(tmp_path / "run")
    keep(result([run], rows([0.8, 0.9])))
    (run / "results" / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    page = opened(report([run]))
    (box,) = [one for one in page.every("div", "warn") if "cannot be read as a result" in one.text]
    assert "evaluate again, or remove it" in box.text
    assert len(list(page.every("table", "figures"))) == 1


# --- kept by the command


@pytest.fixture(scope="module")
def judged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, for results of its own."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("judged") / "run"))


def test_evaluate_keeps_what_it_prints(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, file = judged.parent / "people.csv", tmp_path / "found.json"
    table = "\n".join(["a,b,c,kind", *(f"{n},{n % 7},{n % 5},{'xy'[n % 2]}" for n in range(40))]) + "\n"
    data.write_text(table)
    command = ["tabular", "evaluate", str(judged), str(data), "--label", "kind", "--seeds", "2"]
    assert main([*command, "--protocol", "knn", "--json", str(file)]) == 0
    monkeypatch.chdir(data.parent)
    here = ["tabular", "evaluate", str(judged), "people.csv", "--label", "kind", "--seeds", "2"]
    assert main([*here, "--protocol", "knn"]) == 0, "the same data by another path: the same question"
    assert main([*command, "--protocol", "clustering"]) == 0
    fast = ["--epochs", "1", "--lrs", "1e-3", "--seeds", "1"]
    assert main([*command[:-2], *fast, "--protocol", "finetune"]) == 0
    assert main([*command[:-2], *fast, "--protocol", "finetune", "--encoder-rate", "0.5"]) == 0
    kept, _ = read_kept(judged)
    assert sorted(one.result.protocol for one in kept) == ["clustering", "finetune", "finetune", "knn"]
    (knn,) = [one.result for one in kept if one.result.protocol == "knn"]
    wanted = json.loads(file.read_text())
    assert json.loads(knn.text())["rows"] == wanted["rows"]
    assert knn.asked == wanted["asked"] == {**knn.asked, "train": str(data), "seeds": [0, 1], "label": "kind"}
    page = opened(report([judged], tmp_path / "page.html"))
    assert len(list(page.every("section", "result"))) == 4
    tuned = [row[0] for number in range(4) for row in cells(page, number) if "scratch" in row[0]]
    assert tuned == ["from scratch"] * 2


def test_a_folder_that_refuses_costs_a_warning(judged: Path, tmp_path: Path, capsys: Any) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    shutil.rmtree(run / "results", ignore_errors=True)
    (run / "results").write_text("a file in the way")
    data = tmp_path / "people.csv"
    data.write_text("\n".join(["a,b,c,kind", *(f"{n},{n % 7},{n % 5},{'xy'[n % 2]}" for n in range(40))]) + "\n")
    assert main(["tabular", "evaluate", str(run), str(data), "--label", "kind", "--protocol", "knn"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "not kept" in line]
    assert len(warned) == 1
    assert warned[0].startswith(f"warning: the result is not kept in {run}: cannot save")
    with pytest.raises(UserError, match="cannot save"):
        keep(result([run], rows([1, 1])))


def test_an_encoder_folder_is_its_run(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    (path,) = keep(result([run / "encoder"], rows([1, 1])))
    assert path.parent == run / "results"
