"""Labels by a table beside the samples, and folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unlabeled
from unlabeled.contract import Reader
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.tasks import prepare


class Named(Reader):
    """Samples of which nothing is known but the names."""

    def __init__(self, *names: str):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,kind\na/one.nii.gz,x\na/two.wav @ 3 s,y\n", ["x", "y", ""]),
        ("kind,id\nx,one.nii.gz\ny,two.wav\nz,b.c\n", ["x", "y", "z"]),
        ("file,kind,more\none,x,1\ntwo,y,1\n", ["x", "y", ""]),
        ("whose,kind\na/two,y\nb.c,z\n", ["", "y", "z"]),
        ("name,kind\none,1.5\nb.c,2\n", [1.5, np.nan, 2.0]),
    ],
)
def test_a_table_says_whose_row_it_is(text: str, expected: list[Any], tmp_path: Path) -> None:
    reader = Named("a/one.nii.gz", "a/two.wav @ 3 s", "b.c")
    (tmp_path / "t.csv").write_text(text)
    np.testing.assert_array_equal(labels_of(reader, f"{tmp_path}/t.csv:kind"), np.array(expected))
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    np.testing.assert_array_equal(labels_of(reader, f"{tmp_path}/t.tsv:kind"), np.array(expected))


def test_the_fullest_name_wins(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,kind\none,short\na/one.png,full\n")
    assert labels_of(Named("a/one.png", "b/one.png"), f"{tmp_path}/t.csv:kind").tolist() == ["full", "short"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,kind\np,x\nq,y\n", r"labels no sample: its column 'name' has p, q, and samples are a/one\.png, b"),
        ("name,kine\none,x\n", r"has no column 'kind'; did you mean kine"),
        ("name,kind\n", "has no rows"),
    ],
)
def test_tables_that_fit_nothing_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        labels_of(Named("a/one.png", "b"), f"{tmp_path}/t.csv:kind")
    with pytest.raises(UserError, match="cannot be read as a table of labels"):
        labels_of(Named("a"), "nowhere.csv:kind")
    with pytest.raises(UserError, match="no labels"):
        labels_of(Named("a"), "kind")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    x = random.normal(size=(47, 2))
    lines = [f"{a:.3f},{b:.3f},{b:.3f},{'xy'[int(a > 0)]}" for a, b in x]
    (folder / "t.csv").write_text("\n".join(["a,b,size,kind", *lines]) + "\n")
    rows = [f"t.csv:{number},{'high' if a > 0 else 'low'}" for number, (a, _) in enumerate(x, 1) if number != 5]
    (folder / "beside.csv").write_text("\n".join(["name,level", *rows]) + "\n")
    options: dict[str, Any] = {"reader": {"exclude": ["kind", "size"]}, "encoder": {"name": "mlp", "width": 16}}
    unlabeled.pretrain("tabular", folder / "t.csv", "mae", out=folder / "run", steps=1, quiet=True, **options)
    return folder


def test_a_table_beside_the_data_is_evaluated(folder: Path) -> None:
    result = evaluate([folder / "run"], str(folder / "t.csv"), label=f"{folder}/beside.csv:level", seeds=1)
    assert result.train_rows + result.test_rows == 46
    assert result.value("raw", "linear", "accuracy").mean > 0.7


@pytest.mark.parametrize("label", ["kind", "size"])
def test_folds_test_each_row_once(folder: Path, label: str) -> None:
    common: dict[str, Any] = {"label": label, "test": None, "seeds": 1, "groups": None, "shots": ("100%",)}
    study = prepare([folder / "run"], str(folder / "t.csv"), folds=5, **common)
    tasks = study.tasks["100%"]
    assert len(tasks) == 5
    assert sorted(np.concatenate([task.test_rows for task in tasks]).tolist()) == list(range(47))
    for task in tasks:
        assert sorted([*task.train_rows, *task.test_rows]) == list(range(47))
        assert len(task.test_rows) in (9, 10)
        if label == "kind":
            share = task.train_labels.mean()
            assert abs(task.test_labels.mean() - share) < 0.1, "in proportion"
    assert study.split == "each of 5 folds left out"


def test_folds_that_cannot_be_are_refused(folder: Path) -> None:
    data = str(folder / "t.csv")
    (folder / "rare.csv").write_text(
        "name,level\n" + "".join(f"t.csv:{n},{'r' if n < 3 else 'c'}\n" for n in range(1, 40))
    )
    for options, sentence in (
        ({"folds": 1}, "--folds is from 2 to the number of labelled rows, 47, not 1"),
        ({"folds": 48}, "not 48"),
        ({"folds": 3, "label": f"{folder}/rare.csv:level"}, "class 'r' has 2 rows, fewer than 3 folds"),
        ({"folds": 3, "groups": "kind"}, "give one of them"),
        ({"folds": 3, "test": data}, "leave out --test, or --folds"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluate([folder / "run"], data, **{"label": "kind", "seeds": 1, **options})  # type: ignore[arg-type]
