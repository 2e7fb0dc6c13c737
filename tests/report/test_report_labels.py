"""Colours of labels: classes, numbers, gaps; and how often neighbours share them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pages import Node, opened
from unlabeled.contract import Reader
from unlabeled.errors import UserError
from unlabeled.report.labels import COLOURS, NONE, OTHER, RAMP, Labels, Unanswered, ramp
from unlabeled.report.map import of_instances
from unlabeled.report.style import STYLE
from unlabeled.report.write import report


class Labelled(Reader):
    """Samples that have a label and nothing else."""

    def __init__(self, values: Any, seen: bool = False):
        self.values, self.seen = np.asarray(values), seen

    def __len__(self) -> int:
        return len(self.values)

    def labels(self, spec: str) -> Any:
        if spec != "it":
            raise UserError(f"no label {spec!r}")
        return self.values

    def sees(self, spec: str) -> bool:
        return self.seen


def test_the_commonest_classes_have_a_colour() -> None:
    values = [str(number) for number in range(12) for _ in range(number + 1)] + [""]
    found = Labels.of(Labelled(values), "it", range(len(values)))
    assert list(found.classes) == [str(number) for number in range(2, 12)], "10 of 12, 9 before 10"
    assert len(found.classes) == COLOURS
    for place, text in enumerate(values):
        want = NONE if not text else OTHER if text in "01" else found.classes.index(text)
        assert found.colour(place) == want
    few = Labels.of(Labelled(values), "it", [0, len(values) - 2])
    assert few.classes == found.classes, "a map of some samples has the colours of all"
    assert list(few.texts) == ["0", "11"]


@pytest.mark.parametrize(("spec", "name"), [("cell type", "cell type"), ("{digit}_*", "label"), ("a.csv:age", "label")])
def test_a_label_by_a_pattern_is_called_label(spec: str, name: str) -> None:
    assert Labels(spec, ["a"]).name == name


def test_every_colour_is_there_and_another() -> None:
    import re

    colours = [re.findall(rf"--k{number}: (#\w+)", STYLE)[0] for number in range(COLOURS)]
    assert len(set(colours)) == COLOURS
    assert all(f".k{number} {{ fill: var(--k{number}); }}" in STYLE for number in range(COLOURS))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([3, 1, 3], ["3", "1", "3"]),
        ([3.0, math.nan, 1.0], ["3", "", "1"]),
        ([True, False, True], ["True", "False", "True"]),
        ([2.0, math.inf, 1.0], ["2", "", "1"]),
    ],
)
def test_few_whole_numbers_are_classes(values: list[Any], texts: list[str]) -> None:
    found = Labels.of(Labelled(values), "it", [0, 1, 2])
    assert found.values is None
    assert list(found.texts) == texts


@pytest.mark.parametrize("whole", [True, False])
def test_numbers_lie_on_a_ramp(whole: bool) -> None:
    values = np.arange(201) * (1 if whole else 0.5)
    values = values if whole else np.where(np.arange(201) == 7, np.nan, values)
    found = Labels.of(Labelled(values), "it", range(201))
    known = values[np.isfinite(values)]
    assert found.ends == pytest.approx((np.quantile(known, 0.05), np.quantile(known, 0.95)))
    assert found.shade(0) == RAMP[0], "below the 5th percentile"
    assert found.shade(200) == RAMP[-1]
    if not whole:
        assert found.shade(7) is None
        assert found.texts[7] == ""
    assert found.shared([[1]] * 201) is None


def test_the_ramp_goes_through_its_colours() -> None:
    last = len(RAMP) - 1
    assert [ramp(number / last) for number in range(len(RAMP))] == list(RAMP)
    assert ramp(-3) == RAMP[0]
    half = [round((int(RAMP[0][n : n + 2], 16) + int(RAMP[1][n : n + 2], 16)) / 2) for n in (1, 3, 5)]
    assert [int(ramp(0.5 / last)[n : n + 2], 16) for n in (1, 3, 5)] == pytest.approx(half, abs=1)


def test_what_cannot_be_coloured_is_an_error_of_the_command() -> None:
    with pytest.raises(Unanswered, match="no label 'that'"):
        Labels.of(Labelled(["a", "b"]), "that", [0, 1])
    with pytest.raises(Unanswered, match="no sample on the map has a label 'it'; name another, or other samples"):
        Labels.of(Labelled(["", "", "a"]), "it", [0, 1])


def test_neighbours_of_a_class_are_counted() -> None:
    """Against loops, on two blobs and one sample without a label."""
    random = np.random.default_rng(0)
    texts = [["a", "b"][number % 2] for number in range(40)] + [""]
    x = random.normal(size=(41, 4)) + np.array([3.0 if text == "a" else -3.0 for text in texts])[:, None] * [1, 0, 0, 0]
    x[5] *= -1  # one that lies among the others
    found = of_instances(torch.tensor(x), list(map(str, range(41))))
    shares = Labels("it", texts, ["a", "b"]).shared(found.every)
    centred = x - x.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    same = []
    for place in range(40):
        best = [other for other in np.argsort(-(unit @ unit[place])) if other != place][:5]
        same += [texts[other] == texts[place] for other in best if texts[other]]
    assert shares is not None
    assert 0.8 < np.mean(same) < 1
    assert shares[0] == pytest.approx(np.mean(same))
    assert shares[1] == pytest.approx(19 / 39)


# --- on the page


def keys(page: Node) -> dict[str, str]:
    """Text of the legend to class."""
    (legend,) = [one for one in page.every("ul", "legend") if any(one.every("span", "key"))]
    return {item.text.strip(): item["data-class"] for item in legend.every("li")}


def test_a_class_has_one_colour_on_the_page(run: Path, tmp_path: Path) -> None:
    data = str(run.parent / "table.csv")
    page = opened(report([run], tmp_path / "page.html", label="kind", data=data))
    assert keys(page) == {"even (30)": "k0", "odd (30)": "k1"}
    dots = list(page.every("circle", "dot"))
    assert Counter(dot["class"] for dot in dots) == {"dot labelled k0": 30, "dot labelled k1": 30}
    for number, dot in enumerate(dots):
        kind = ["even", "odd"][number % 2]
        assert dot["class"].endswith(f"k{number % 2}")
        assert dot["data-text"].splitlines()[:2] == [f"table.csv:{number + 1}", f"kind: {kind}"]
    (table,) = [one for one in page.every("table", "rows") if "cosine" in one.text and "alike" in one.text]
    rows = [[cell.text for cell in row.every("td")] for row in next(table.every("tbody")).every("tr")]
    names = {f"{number + 1}": ["even", "odd"][number % 2] for number in range(60)}
    alike = sum(names[row[1]] == names[rows[0][1]] for row in rows[1:])
    assert rows[0][3] == f"{names[rows[0][1]]} ({alike} of 5 alike)"
    assert [row[3] for row in rows[1:]] == [names[row[1]] for row in rows[1:]]
    assert "of the 5 nearest neighbours of all samples" in page.text.lower()


def test_a_number_is_a_shade_on_the_page(run: Path, tmp_path: Path) -> None:
    data = str(run.parent / "table.csv")
    page = opened(report([run], tmp_path / "page.html", label="size", data=data))
    dots = list(page.every("circle", "dot"))
    assert dots[0]["style"] == f"fill: {RAMP[0]}"
    assert dots[-1]["style"] == f"fill: {RAMP[-1]}"
    assert len({dot["style"] for dot in dots}) > 40
    (bar,) = page.every("span", "ramp")
    assert RAMP[0] in bar["style"]
    low, high = np.quantile(np.round(np.arange(60) / 7, 3), [0.05, 0.95])
    assert f"up to {low:.4g}" in page.text
    assert f"{high:.4g} and more (60)" in page.text


def test_a_column_that_the_encoder_sees_is_said_to_be_one(run: Path, tmp_path: Path) -> None:
    assert "The encoder is given a, so" in opened(report([run], tmp_path / "page.html", label="a")).text
    assert "is given" not in opened(report([run], tmp_path / "page.html", label="size")).text


def test_a_label_that_is_not_there_writes_no_page(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'kidn'; did you mean kind"):
        report([run], tmp_path / "page.html", label="kidn")
    assert not (tmp_path / "page.html").exists()


def test_runs_side_by_side_share_a_legend(run: Path, tmp_path: Path) -> None:
    data = str(run.parent / "table.csv")
    page = opened(report([run, run], tmp_path / "page.html", label="kind", data=data))
    (shared,) = page.every("div", "shared")
    assert len(list(page.every("span", "key"))) == len(list(shared.every("span", "key"))) == 2
    assert page.text.count("nearest neighbours of all samples") == 2
