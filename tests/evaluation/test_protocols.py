"""Retrieval, clustering, out-of-distribution and several labels: naive versions, closed forms, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, normalized_mutual_info_score

from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.evaluation import retrieval
from unlabeled.evaluation.clustering import kmeans
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.metrics import points
from unlabeled.evaluation.multilabel import mean_average_precision, one_vs_rest
from unlabeled.evaluation.ood import mahalanobis, neighbour
from unlabeled.evaluation.probes import Split
from unlabeled.training.pretrain import pretrain

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _again() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    RANDOM.bit_generator.state = np.random.default_rng(2).bit_generator.state


def blobs(rows: int, apart: float) -> tuple[Any, Any]:
    labels = RANDOM.integers(0, 3, rows)
    return (np.eye(3, 6)[labels] * apart + RANDOM.normal(size=(rows, 6))).astype(np.float32), labels


def naive_retrieval(x: Any, y: Any, gallery: Any, labels: Any, itself: bool) -> dict[str, float]:
    maps, ones, fives = [], [], []
    for number, (row, wanted) in enumerate(zip(x, y, strict=True)):
        cosine = gallery @ row / np.linalg.norm(gallery, axis=1) / np.linalg.norm(row)
        right = labels == wanted
        if itself:
            cosine, right = np.delete(cosine, number), np.delete(right, number)
        if right.any():
            maps.append(average_precision_score(right, cosine))
            nearest = right[np.argsort(-cosine)]
            ones.append(nearest[0])
            fives.append(nearest[:5].any())
    return {"map": np.mean(maps), "recall@1": np.mean(ones), "recall@5": np.mean(fives)}  # type: ignore[dict-item]


def test_retrieval_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(50, 1.0)
    test, truth = blobs(31, 1.0)
    truth[0] = labels[0] = 7  # alone among the tests, with one of its kind to train on
    split = Split(train, labels, test, truth)
    for at_once in (retrieval.AT_ONCE, 100):
        monkeypatch.setattr(retrieval, "AT_ONCE", at_once)
        among, across = retrieval.among_test(split, 0), retrieval.in_train(split, 0)
        assert points(among, 31) == pytest.approx(naive_retrieval(test, truth, test, truth, True))
        assert points(across, 31) == pytest.approx(naive_retrieval(test, truth, train, labels, False))
    with pytest.raises(UserError, match="no test sample has another of its class to retrieve"):
        retrieval.among_test(Split(train, labels, test[:3], np.arange(3)), 0)


def test_kmeans_finds_what_is_apart_and_nothing_in_noise() -> None:
    x, y = blobs(120, 12.0)
    assert points(kmeans(Split(x[:0], y[:0], x, y * 5), 0), 120) == pytest.approx({"nmi": 1, "ari": 1, "accuracy": 1})
    noise = points(kmeans(Split(x[:0], y[:0], RANDOM.normal(size=x.shape), y), 0), 120)
    assert noise["nmi"] < 0.1
    assert abs(noise["ari"]) < 0.1
    x, y = blobs(60, 2.0)
    from sklearn.cluster import KMeans

    found = KMeans(3, n_init=10, random_state=5).fit_predict(x)
    assert points(kmeans(Split(x[:0], y[:0], x, y), 5), 60)["nmi"] == pytest.approx(
        normalized_mutual_info_score(y, found)
    )
    with pytest.raises(UserError, match="clusters need two"):
        kmeans(Split(x, y, x[:4], np.zeros(4, int)), 0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_mahalanobis_of_gaussians_is_closed(scale: float) -> None:
    """Distances |x| of N(0, 1) and N(0, s²): AUROC 2/π atan s, FPR95 P(|z| < 1.96 / s), whatever the units."""
    make = lambda deviation: (RANDOM.normal(0, deviation, (20_000, 1)) * 50 + 7).astype(np.float32)  # noqa: E731
    split = Split(make(1), np.zeros(20_000), make(1), np.zeros(20_000), make(scale))
    found = points(mahalanobis(split, 0), 40_000)
    assert found["auroc"] == pytest.approx(2 / np.pi * np.arctan(scale), abs=0.01)
    assert found["fpr95"] == pytest.approx(2 * norm.cdf(1.96 / scale) - 1, abs=0.01)


def test_mahalanobis_is_to_the_nearest_class() -> None:
    """Two classes far apart along an axis: what lies between is far with classes, and the nearest without."""
    centres = np.repeat([-20.0, 20.0], 200)
    x = (RANDOM.normal(size=(400, 2)) + centres[:, None] * [1, 0]).astype(np.float32)
    far = RANDOM.normal(size=(100, 2)).astype(np.float32)
    labels = np.repeat([0, 1], 200)
    assert points(mahalanobis(Split(x, labels, x, labels, far), 0), 500)["auroc"] == 1
    blind = Split(x, labels.astype(float), x, labels.astype(float), far)
    assert points(mahalanobis(blind, 0), 500)["auroc"] < 0.3
    shared = np.cov(np.concatenate([x[:200] - x[:200].mean(0), x[200:] - x[200:].mean(0)]).T, bias=True)
    means = [x[:200].mean(0), x[200:].mean(0)]
    near = [min(float((row - m) @ np.linalg.inv(shared) @ (row - m)) for m in means) for row in x]
    cut = np.sort(near)[379]
    close = (RANDOM.normal(size=(100, 2)) * 2 + [20, 0]).astype(np.float32)
    passed = [min(float((row - m) @ np.linalg.inv(shared) @ (row - m)) for m in means) <= cut for row in close]
    found = points(mahalanobis(Split(x, labels, x, labels, close), 0), 500)["fpr95"]
    assert found == pytest.approx(np.mean(passed), abs=0.03), "but for the shrinkage"


def test_neighbours_are_the_tenth_by_cosine() -> None:
    train, labels = blobs(40, 2.0)
    test, truth = blobs(30, 2.0)
    far = RANDOM.normal(size=(25, 6)).astype(np.float32)
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    tenth = [np.sort(unit @ row / np.linalg.norm(row))[-10] for row in np.concatenate([test, far])]
    wins = np.mean([[(a > b) + 0.5 * (a == b) for b in tenth[30:]] for a in tenth[:30]])
    found = points(neighbour(Split(train, labels, test, truth, far), 0), 55)
    assert found["auroc"] == pytest.approx(wins)
    few = Split(train[:4], labels[:4], test, truth, far)
    assert 0 <= points(neighbour(few, 0), 55)["auroc"] <= 1, "of four the fourth"


def test_mean_average_precision_is_scikit_learns() -> None:
    truth = RANDOM.random((50, 4)) < 0.3
    truth[:, 3] = False  # a label that no test sample has
    score = RANDOM.normal(size=(50, 4))
    found = mean_average_precision(truth, score)
    counts = np.r_[[np.ones(50)], RANDOM.poisson(1.0, (5, 50))]
    for metric, many in (("map_micro", "micro"), ("map_macro", "macro")):
        for value, count in zip(found[metric](counts), counts, strict=True):
            rows = np.repeat(np.arange(50), count.astype(int))
            chosen = slice(None) if many == "micro" else slice(3)
            assert value == pytest.approx(
                average_precision_score(truth[rows][:, chosen], score[rows][:, chosen], average=many)
            )


def test_several_labels_are_found_each_by_itself() -> None:
    x = RANDOM.normal(size=(300, 5)).astype(np.float32)
    y = np.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] > 0.5, RANDOM.random(300) < 0.5, np.ones(300, bool)], 1)
    found = one_vs_rest(Split(x[:200], y[:200], x[200:], y[200:]), 0)
    assert points(found, 100)["map_macro"] == pytest.approx((1 + 1 + 0.55 + 1) / 4, abs=0.05)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("protocols"), np.random.default_rng(1)
    for name, shift in (("train", 0.0), ("test", 0.0), ("far", 5.0)):
        lines = ["a,b,label,tags,size"]
        for a, b in random.normal(size=(90, 2)) + shift:
            tags = ";".join(tag for tag, on in (("left", a < 0), ("low", b < 0), ("any", True)) if on)
            lines.append(f"{a:.3f},{b:.3f},{'no' if a < 0 else 'yes'},{tags},{a + b:.3f}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {
        "encoder": {"name": "mlp", "width": 16},
        "reader": {"exclude": ["label", "tags", "size"]},
    }
    pretrain("tabular", str(folder / "train.csv"), "mae", out=folder / "run", steps=2, quiet=True, **options)
    return folder


@pytest.mark.parametrize(
    ("flags", "label", "lines", "least"),
    [
        ("retrieval", "label", 6, {("raw", "among test", "recall@1"): 0.7, ("raw", "in train", "map"): 0.6}),
        ("clustering", "label", 3, {("raw", "k-means", "accuracy"): 0.5}),
        ("ood", "label", 3, {("raw", "mahalanobis", "auroc"): 0.99, ("untrained", "mahalanobis", "auroc"): 0.9}),
        ("ood", "", 3, {("raw", "mahalanobis", "auroc"): 0.99}),
        ("multilabel", "tags", 3, {("raw", "linear", "map_micro"): 0.95, ("raw", "linear", "map_macro"): 0.95}),
        ("linear", "label", 3, {("raw", "linear", "accuracy"): 0.9}),
        ("knn", "label", 3, {("raw", "knn", "accuracy"): 0.8}),
    ],
)
def test_protocols_stand_beside_their_baselines(
    flags: str, label: str, lines: int, least: dict[Any, float], table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"tabular evaluate {table}/run {table}/train.csv --test {table}/test.csv --seeds 2 --protocol {flags}"
    line += f" --json {table}/found.json" + (f" --label {label}" if label else "")
    assert main([*line.split(), *(["--ood", f"{table}/far.csv"] if flags == "ood" else [])]) == 0
    names = [one.split("  ")[0] for one in capsys.readouterr().out.splitlines()[2 : 2 + lines]]
    assert names == [name for name in ("trained (mae)", "untrained", "raw") for _ in range(lines // 3)]
    rows = json.loads((table / "found.json").read_text())["rows"]
    found = {(row["features"], row["probe"], row["metric"]): row for row in rows}
    assert all(len(row["values"]) == 2 and row["interval"][0] <= row["interval"][1] for row in rows)
    for name, value in least.items():
        assert found[name]["mean"] > value
        assert found[name]["interval"][0] - 1e-9 <= found[name]["mean"] <= found[name]["interval"][1] + 1e-9


def test_shares_of_several_labels(table: Path) -> None:
    options: dict[str, Any] = {"label": "tags", "protocol": "multilabel", "seeds": 1}
    result = evaluate([table / "run"], str(table / "train.csv"), shots=("50%", "100%"), **options)
    assert [(row.shots, row.n) for row in result.rows if (row.features, row.metric) == ("raw", "map_micro")] == [
        ("50%", 36),
        ("100%", 72),
    ]
    with pytest.raises(UserError, match="--shots 3 is rows a class, and samples here have several labels"):
        evaluate([table / "run"], str(table / "train.csv"), shots=("3",), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocol": "retrieval", "label": "size"}, "label 'size' is a number, and this protocol needs classes"),
        ({"protocol": "clustering"}, "no label is given; say with --label"),
        ({"protocol": "ood", "label": "label"}, "--protocol ood needs samples of another kind, --ood DATA"),
        ({"protocol": "probe", "label": "label", "ood": "x"}, "and no other protocol does"),
        ({"protocol": "retreival", "label": "label"}, "did you mean retrieval"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(options: dict[str, Any], sentence: str, table: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        evaluate([table / "run"], str(table / "train.csv"), **options)
