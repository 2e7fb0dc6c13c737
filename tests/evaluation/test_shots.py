"""Few labels: the right number of rows, the same for all features, and nothing of the test."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.embedding import Embedded
from unlabeled.errors import UserError
from unlabeled.evaluation import evaluate as module
from unlabeled.evaluation import features
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.metrics import Metrics
from unlabeled.evaluation.probes import Split, linear_probe
from unlabeled.evaluation.results import Result
from unlabeled.evaluation.shots import Shots, parse
from unlabeled.training.pretrain import pretrain

LABELS = np.repeat([0, 1, 2, 3], [600, 300, 99, 1])
NAMES = ("a", "b", "c", "d")


def rows(text: str, labels: Any = LABELS, seed: int = 0, numbers: Any = None) -> Any:
    return Shots.of(text).rows(labels, np.arange(len(labels)) if numbers is None else numbers, seed, NAMES)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("100%", [600, 300, 99, 1]),
        ("50%", [300, 150, 50, 1]),  # 49.5 of c and 0.5 of d: the one row left over goes to c, then d has none
        ("10%", [60, 30, 10, 1]),
        ("1%", [6, 3, 1, 1]),
        ("0.1%", [1, 1, 1, 1]),  # one of 1000, and one of each class
        ("1", [1, 1, 1, 1]),
    ],
)
def test_a_share_counts_right(text: str, counts: list[int]) -> None:
    chosen = rows(text)
    assert np.bincount(LABELS[chosen]).tolist() == counts
    assert len(np.unique(chosen)) == len(chosen)
    assert (np.diff(chosen) > 0).all()


def test_a_share_of_many_classes_is_of_all_rows() -> None:
    """Classes of 149 rows would have 1 each at 1 % if each were rounded alone."""
    labels = np.repeat(np.arange(20), 149)
    chosen = Shots.of("1%").rows(labels, np.arange(len(labels)), 0, list(map(str, range(20))))
    assert len(chosen) == 30
    assert set(np.bincount(labels[chosen])) == {1, 2}


def test_rows_depend_on_seed_and_row_alone() -> None:
    assert rows("10%").tolist() == rows("10%").tolist()
    assert rows("10%").tolist() != rows("10%", seed=1).tolist()
    assert set(rows("1%")) <= set(rows("10%")) <= set(rows("50%")), "a larger part holds a smaller one"
    order = np.random.default_rng(0).permutation(len(LABELS))
    assert set(order[rows("10%", LABELS[order], numbers=order)]) == set(rows("10%")), "the reader's order is no matter"
    often = np.bincount(np.concatenate([rows("10%", seed=seed) for seed in range(100)]), minlength=1000)
    assert often[:600].max() < 30, "of 100 times each row of the first class is taken about 10"
    assert often[:600].min() >= 1


def test_torch_and_numpy_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    rows("10%")
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0%", "above 0% and up to 100%, not 0%"),
        ("120%", "above 0% and up to 100%, not 120%"),
        ("0", "at least 1 row a class"),
        ("-5", "not '-5'"),
        ("ten", r"shares of the labels \(1%\) or rows a class \(10\), not 'ten'"),
        ("1.5", "not '1.5'"),
        ("nan%", "not 'nan%'"),
        ("", "not ''"),
        ("2", "more than class 'd' has: 1 labelled training rows"),
    ],
)
def test_bad_values_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        rows(text)


def test_numbers_have_no_classes_to_draw_from() -> None:
    with pytest.raises(UserError, match="this label is a number"):
        Shots.of("10%").rows(np.arange(9.0), np.arange(9), 0, ())
    assert len(Shots.of("100%").rows(np.arange(9.0), np.arange(9), 0, ())) == 9


def test_each_is_taken_once_and_none_is_an_error() -> None:
    assert [one.text for one in parse(["1.0%", "1%", 10, "10", "100%"])] == ["1%", "10", "100%"]
    with pytest.raises(UserError, match="--shots is empty"):
        parse([])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows to fit on and two files of 60 to test on, in a folder with a run."""
    folder = tmp_path_factory.mktemp("shots")
    random = np.random.default_rng(0)
    for name, count in (("train", 300), ("test", 60), ("other", 60)):
        x = random.normal(size=(count, 3))
        lines = [f"{a:.4f},{b:.4f},{c:.4f},{'yes' if a > 0.6 else 'no'}" for a, b, c in x]
        (folder / f"{name}.csv").write_text("\n".join(["a,b,c,label", *lines]) + "\n")
    encoder, reader = {"name": "mlp", "width": 16}, {"exclude": ["label"]}
    made = {"out": folder / "run", "encoder": encoder, "reader": reader, "steps": 2, "quiet": True}
    pretrain("tabular", str(folder / "train.csv"), "mae", **made)  # type: ignore[arg-type]
    return folder


def measure(table: Path, **options: Any) -> Result:
    test = str(table / options.pop("test", "test.csv")) if options.get("test") != "" else options.pop("test") or None
    return evaluate([table / "run"], str(table / "train.csv"), label="label", test=test, seeds=2, **options)


def test_results_carry_their_labels(table: Path, tmp_path: Path) -> None:
    result = measure(table, shots=("5", "10%", "100%"))
    assert [(row.shots, row.n) for row in result.rows if (row.features, row.probe) == ("raw", "knn")] == [
        ("5", 10),
        ("10%", 30),
        ("100%", 300),
    ]
    alone = measure(table)
    whole = [row for row in result.rows if row.shots == "100%"]
    assert [asdict(row) for row in alone.rows] == [asdict(row) for row in whole], "other shares change nothing"
    assert result.value("raw", "linear", "accuracy") == alone.value("raw", "linear", "accuracy")
    assert result.value("raw", "linear", "accuracy", "5").n == 10
    result.save(tmp_path / "result.json")
    assert '"shots": "10%"' in (tmp_path / "result.json").read_text()


class Spy:
    """Features that are the number of their row, whatever the encoder, and what the probes were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.splits: list[Split] = []
        monkeypatch.setattr(features, "embed", self.embed)
        monkeypatch.setattr(module, "raw", lambda like: lambda reader: self.numbers(len(reader)))
        monkeypatch.setitem(module.PROTOCOLS, "probe", module.Protocol({"linear": self.probe}))  # type: ignore[arg-type]

    @staticmethod
    def numbers(rows: int) -> Any:
        return np.arange(rows, dtype=np.float32)[:, None]

    def embed(self, encoder: Any, reader: Any, *rest: Any, **options: Any) -> Embedded:
        return Embedded(torch.arange(len(reader)), torch.from_numpy(self.numbers(len(reader))))

    def probe(self, split: Split, seed: int) -> Metrics:
        self.splits.append(split)
        return {}

    def trained_on(self) -> list[list[int]]:
        return [split.train[:, 0].astype(int).tolist() for split in self.splits]


@pytest.mark.parametrize("test", ["test.csv", ""])
def test_all_features_are_probed_with_the_same_rows(table: Path, monkeypatch: pytest.MonkeyPatch, test: str) -> None:
    spy = Spy(monkeypatch)
    measure(table, shots=("10%", "3"), test=test)
    seen = spy.trained_on()
    assert len(seen) == 12, "three features, two parts of the labels, two seeds"
    trained, untrained, raw = seen[:4], seen[4:8], seen[8:]
    assert trained == untrained == raw
    assert len({str(one) for one in trained}) == 4, "another part for each seed"


def test_nothing_of_the_test_is_used(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test file leads to the same rows; without one no row is fitted on and tested on."""
    spies = []
    for test in ("test.csv", "other.csv", ""):
        with monkeypatch.context() as patch:
            spies.append(Spy(patch))
            measure(table, shots=("10%",), test=test)
    assert spies[0].trained_on() == spies[1].trained_on()
    for split in spies[2].splits:
        assert not set(split.train[:, 0]) & set(split.test[:, 0])
        assert len(split.train) == 24, "10 % of the 240 rows that are not held out"


def test_strength_is_chosen_inside_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model but the last sees part of the rows given, each row is scored on once, and no test row is touched."""
    from sklearn.linear_model import LogisticRegression

    fitted: list[set[int]] = []
    scored: list[set[int]] = []
    numbers = np.arange(40, dtype=np.float32)[:, None]
    split = Split(numbers, np.arange(40) % 2, numbers + 100, np.arange(40) % 2)
    scale = float(numbers.std())

    def back(x: Any) -> set[int]:
        return set(np.round(x[:, 0] * scale + numbers.mean()).astype(int).tolist())

    plain_fit, plain_predict = LogisticRegression.fit, LogisticRegression.predict
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda self, x, y: (fitted.append(back(x)), plain_fit(self, x, y))[1]
    )
    monkeypatch.setattr(
        LogisticRegression, "predict", lambda self, x: (scored.append(back(x)), plain_predict(self, x))[1]
    )
    linear_probe(split, 0)
    assert fitted.pop() == set(range(40))
    assert scored.pop() == set(range(100, 140)), "test rows are seen once, at the end"
    assert len(fitted) == len(scored) == 4 * 5
    assert all(not fit & other and fit | other == set(range(40)) for fit, other in zip(fitted, scored, strict=True))
    assert set().union(*scored[::4]) == set(range(40))


@pytest.mark.parametrize("counts", [[1, 1], [1, 9], [2, 2], [3, 1, 1], [1, 5, 30]])
def test_few_rows_of_any_shape_can_be_fitted(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    train = np.eye(len(counts), 4, dtype=np.float32)[labels] * 5
    split = Split(train, labels, train, labels)
    assert linear_probe(split, 0)["accuracy"] > 0.6


@pytest.mark.parametrize("count", [1, 2, 3, 5, 30])
def test_few_numbers_can_be_fitted(count: int) -> None:
    x = np.linspace(-1, 1, count, dtype=np.float32)[:, None]
    test = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    split = Split(x, x[:, 0].astype(float), test, test[:, 0].astype(float))
    score = linear_probe(split, 0)["r2"]
    assert np.isfinite(score)
    assert count < 30 or score > 0.99
    assert replace(split, train=x).regression
