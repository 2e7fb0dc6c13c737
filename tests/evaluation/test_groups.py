"""Leaving one group out: who is tested, who is fitted on, and what cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlabeled.errors import UserError
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.probes import Split, linear_probe
from unlabeled.saved import describe
from unlabeled.training.pretrain import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run on rows of three places, whose label is the sign of a column that means its opposite in the last place."""
    folder = tmp_path_factory.mktemp("groups")
    random = np.random.default_rng(0)
    lines = ["a,b,label,place"]
    for number in range(120):
        a, b = random.normal(size=2)
        place = ("east", "north", "west")[number % 3]
        right = (a > 0) != (place == "west")
        lines.append(f"{a:.4f},{b:.4f},{'yes' if right else 'no'},{place}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    encoder = {"name": "mlp", "width": 16, "depth": 1}
    reader = {"exclude": ["label", "place"]}
    data, out = str(folder / "data.csv"), folder / "run"
    pretrain("tabular", data, "mae", out=out, reader=reader, encoder=encoder, steps=3, quiet=True)
    return out, data


def test_each_group_is_tested_by_a_probe_of_the_others(run: tuple[Path, str]) -> None:
    out, data = run
    result = evaluate([out], data, label="label", groups="place", seeds=2)
    assert result.groups == ("east", "north", "west")
    raw = result.value("raw", "linear", "accuracy")
    rows = np.arange(120)
    reader = describe(out).make_reader(data)
    x, y = reader.raw(), (np.asarray(reader.labels("label")) == "yes").astype(np.int64)
    assert x is not None
    for number, value in enumerate(raw.values):
        test = rows % 3 == number
        assert linear_probe(Split(x[~test], y[~test], x[test], y[test]), 0)["accuracy"] == value
    assert raw.values[2] < 0.2, "the west is the other way round, which only a probe that never saw it gets wrong"
    assert len(result.value("untrained", "linear", "accuracy").values) == 3 * 2


def test_numbered_groups_go_by_number_and_are_called_as_people_write_them(
    run: tuple[Path, str], tmp_path: Path
) -> None:
    out, data = run
    head, *rows = Path(data).read_text().splitlines()
    numbered = tmp_path / "numbered.csv"
    lines = [f"{row},{(1, 2, 10)[number % 3]}" for number, row in enumerate(rows)]
    numbered.write_text("\n".join([f"{head},fold", *lines]) + "\n")
    by_place = evaluate([out], data, label="label", groups="place", seeds=1)
    by_fold = evaluate([out], str(numbered), label="label", groups="fold", seeds=1)
    assert by_fold.groups == ("1", "2", "10")
    assert by_fold.value("raw", "linear", "accuracy") == by_place.value("raw", "linear", "accuracy")


def test_groups_that_cannot_be_left_out_are_refused(run: tuple[Path, str], tmp_path: Path) -> None:
    out, data = run
    with pytest.raises(UserError, match="leave out --test, or --groups"):
        evaluate([out], data, label="label", groups="place", test=data)
    with pytest.raises(UserError, match="has no"):
        evaluate([out], data, label="label", groups="planet")
    one = tmp_path / "one.csv"
    one.write_text("\n".join(line for line in Path(data).read_text().splitlines() if "east" in line or "a,b" in line))
    with pytest.raises(UserError, match="to leave one out it takes two"):
        evaluate([out], str(one), label="label", groups="place")
    gap = tmp_path / "gap.csv"
    gap.write_text(Path(data).read_text() + "0.1,0.2,yes,\n")
    with pytest.raises(UserError, match="1 labelled rows have no group 'place'"):
        evaluate([out], str(gap), label="label", groups="place")
