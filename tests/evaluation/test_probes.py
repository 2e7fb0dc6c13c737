"""Probes against what can be said of them without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.errors import UserError
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.probes import Split, knn_probe, linear_probe
from unlabeled.saved import describe
from unlabeled.training.pretrain import pretrain

RANDOM = np.random.default_rng(0)


def blobs(rows: int, seed: int, apart: float = 6.0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, rows)
    centres = np.eye(3, 8) * apart
    return (centres[labels] + random.normal(size=(rows, 8))).astype(np.float32), labels


def test_both_probes_find_what_is_there_and_nothing_where_there_is_nothing() -> None:
    train, labels = blobs(300, 1)
    test, truth = blobs(300, 2)
    split = Split(train, labels, test, truth)
    assert linear_probe(split, 0)["accuracy"] > 0.98
    assert knn_probe(split)["accuracy"] > 0.98
    noise = [RANDOM.normal(size=train.shape).astype(np.float32) for _ in range(2)]
    nothing = Split(noise[0], labels, noise[1], truth)
    assert abs(linear_probe(nothing, 0)["accuracy"] - 1 / 3) < 0.1
    assert abs(knn_probe(nothing)["accuracy"] - 1 / 3) < 0.1


def test_knn_is_its_formula() -> None:
    """Against loops: cosine similarity of standardised rows, the 5 nearest, exp(s/τ) votes."""
    train, labels = blobs(60, 3, apart=1.0)
    test, truth = blobs(40, 4, apart=1.0)
    mean, deviation = train.mean(0), train.std(0)
    right = 0
    for row, label in zip((test - mean) / deviation, truth, strict=True):
        scores = []
        for other, its in zip((train - mean) / deviation, labels, strict=True):
            scores.append((float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)), its))
        votes = [0.0, 0.0, 0.0]
        for similarity, its in sorted(scores, reverse=True)[:5]:
            votes[its] += np.exp(similarity / 0.07)
        right += int(np.argmax(votes) == label)
    split = Split(train, labels, test, truth)
    assert knn_probe(split, k=5)["accuracy"] == pytest.approx(right / 40)
    assert knn_probe(split, k=1000)["accuracy"] > 0.3, "more neighbours than rows are all rows"


def test_probes_do_not_look_at_the_test_rows_to_scale_or_choose() -> None:
    train, labels = blobs(200, 5, apart=2.0)
    test, truth = blobs(50, 6, apart=2.0)
    alone = Split(train, labels, test[:1], truth[:1])
    together = Split(train, labels, np.concatenate([test[:1], 1e3 * test[1:]]), truth)
    for probe in (lambda split: linear_probe(split, 0), knn_probe):
        both = [probe(Split(s.train, s.train_labels, s.test[:1], s.test_labels[:1])) for s in (alone, together)]
        assert both[0] == both[1]


def test_numbers_are_regressed() -> None:
    x = RANDOM.normal(size=(300, 5)).astype(np.float32)
    y = x @ np.arange(5.0) + 0.1 * RANDOM.normal(size=300)
    split = Split(x[:200], y[:200], x[200:], y[200:])
    assert linear_probe(split, 0)["r2"] > 0.98
    assert 0.2 < knn_probe(split)["r2"] < 0.98


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    encoder = {"name": "ft_transformer", "width": 32, "depth": 1}
    pretrain("tabular", "sklearn:wine", "simclr", out=out, encoder=encoder, steps=5, quiet=True)
    return out


def test_baselines_stand_beside_and_do_not_depend_on_the_training(run: Path, tmp_path: Path) -> None:
    one = evaluate([run], "sklearn:wine", label="target", seeds=2)
    assert {row.features for row in one.rows} == {"trained (simclr)", "untrained", "raw"}
    assert all(len(row.values) == 2 for row in one.rows)
    other = tmp_path / "other"
    encoder = {"name": "ft_transformer", "width": 32, "depth": 1}
    pretrain("tabular", "sklearn:wine", "simclr", out=other, encoder=encoder, steps=20, seed=7, quiet=True)
    both = evaluate([run, other], "sklearn:wine", label="target", seeds=2)
    for features in ("untrained", "raw"):
        assert both.value(features, "linear", "accuracy") == one.value(features, "linear", "accuracy")
    assert len(both.value("trained (simclr)", "linear", "accuracy").values) == 4
    assert (
        both.value("trained (simclr)", "knn", "accuracy").values[:2]
        == one.value("trained (simclr)", "knn", "accuracy").values
    )
    assert one.majority == pytest.approx(14 / 36)
    assert (one.train_rows, one.test_rows) == (142, 36)
    again = evaluate([run], "sklearn:wine", label="target", seeds=2)
    assert again == one, "an evaluation is a function of its arguments"


def test_rows_without_a_label_are_left_out_and_strange_labels_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = [
        f"{a:.3f},{b:.3f},{'' if i % 4 == 0 else 'yes' if a > b else 'no'}"
        for i, (a, b) in enumerate(random.normal(size=(80, 2)))
    ]
    (tmp_path / "train.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    (tmp_path / "strange.csv").write_text("a,b,label\n1,2,maybe\n2,1,no\n")
    (tmp_path / "none.csv").write_text("a,b,label\n1,2,yes\n2,1,yes\n")
    out = tmp_path / "run"
    encoder = {"name": "mlp", "width": 16}
    reader = {"exclude": ["label"]}
    pretrain(
        "tabular", str(tmp_path / "train.csv"), "mae", out=out, reader=reader, encoder=encoder, steps=3, quiet=True
    )
    result = evaluate([out], str(tmp_path / "train.csv"), label="label", seeds=1)
    assert result.train_rows + result.test_rows == 60
    with pytest.raises(
        UserError, match="of the test data has 'maybe', which the training data do not; theirs are 'no'"
    ):
        evaluate([out], str(tmp_path / "train.csv"), label="label", test=str(tmp_path / "strange.csv"))
    with pytest.raises(UserError, match="has one class only"):
        evaluate([out], str(tmp_path / "none.csv"), label="label")
    with pytest.raises(UserError, match="was trained on 'a'"):
        evaluate([out], str(tmp_path / "train.csv"), label="a")


def test_tables_stand_beside_boosted_trees(tmp_path: Path) -> None:
    """Which find what is no sum; other domains have no columns to grow trees of."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(0)
    x = random.normal(size=(400, 2))
    lines = [f"{a:.4f},{b:.4f},{'yes' if a * b > 0 else 'no'}" for a, b in x]
    for name, part in (("train", lines[:300]), ("test", lines[300:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,label", *part]) + "\n")
    train, test = (str(tmp_path / f"{name}.csv") for name in ("train", "test"))
    options: dict[str, Any] = {"reader": {"exclude": ["label"]}, "encoder": {"name": "mlp", "width": 8}}
    run = tmp_path / "run"
    pretrain("tabular", train, "mae", out=run, steps=1, quiet=True, **options)
    found = evaluate([run], train, label="label", test=test, seeds=2)
    trees = found.value("raw", "boosted trees", "accuracy")
    readers = [describe(run).make_reader(data) for data in (train, test)]
    (fit, y), (other, truth) = ((one.raw(), one.labels("label")) for one in readers)
    by_hand = [HistGradientBoostingClassifier(random_state=seed).fit(fit, y).score(other, truth) for seed in (0, 1)]
    assert trees.values == pytest.approx(by_hand)
    assert trees.mean > 0.9
    assert found.value("raw", "linear", "accuracy").mean < 0.65
    assert not any(row.probe == "boosted trees" for row in found.rows if row.features != "raw")
