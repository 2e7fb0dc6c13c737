"""From pre-training to numbers, at every level, with the split's name in each and the baselines beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.training.pretrain import pretrain
from unlabeled_graph import evaluation
from unlabeled_graph.evaluation import graph_classification, link_prediction, node_classification, node_clustering

ENCODER = {"name": "gcn", "width": 16}


@pytest.fixture(scope="module")
def run(web: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty steps on the nodes of one graph, a tenth of whose edges nobody sees."""
    out = tmp_path_factory.mktemp("run") / "vicreg"
    done = pretrain(
        "graph", web, "vicreg", out=out, reader={"hold_edges": 0.1}, encoder=ENCODER, epochs=20, quiet=True, log_every=1
    )
    assert done.steps == 20  # all nodes at once: a step an epoch
    return str(out)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PROBE_EPOCHS", 60)


def test_training_on_one_graph_lowers_the_loss(run: str) -> None:
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("quick")
def test_nodes_are_classified_beside_the_baselines(run: str, web: str) -> None:
    public = node_classification([run], web, seeds=2)
    random = node_classification([run], web, split="random", seeds=2)
    assert [(row.features, row.split) for row in public] == [
        ("trained (vicreg)", "public"),
        ("untrained", "public"),
        ("raw", "public"),
    ]
    assert {row.split for row in random} == {"random 10/10/80"}
    assert all(len(row.values) == 2 and 0.5 < row.mean <= 1 for row in public)


@pytest.mark.usefixtures("quick")
def test_several_runs_share_the_seeds(run: str, web: str) -> None:
    rows = node_classification([run, run, run], web, seeds=1)
    assert len(rows[0].values) == 3


def test_clusters_and_links_have_their_metrics(run: str, web: str) -> None:
    assert {row.metric for row in node_clustering([run], web, seeds=1)} == {"nmi", "ari"}
    links = link_prediction([run], web, seeds=2)
    assert {row.metric for row in links} == {"auc", "ap"}
    assert all(0 <= value <= 1 for row in links for value in row.values)


def test_links_that_were_trained_on_prove_nothing(web: str, tmp_path: Path) -> None:
    pretrain("graph", web, "vicreg", out=tmp_path / "all", encoder=ENCODER, epochs=1, quiet=True)
    with pytest.raises(UserError, match="trained on all edges"):
        link_prediction([tmp_path / "all"], web)


def test_graphs_are_classified_in_folds(
    rings: str, web: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "FOLDS", 3)
    pretrain("graph", rings, "mae", out=tmp_path / "mae", encoder=ENCODER, epochs=1, batch_size=4, quiet=True)
    rows = graph_classification([tmp_path / "mae"], rings, classifier="logistic")
    assert [row.features for row in rows] == ["trained (mae)", "untrained", "raw"]
    assert rows[0].split == "3 folds"
    with pytest.raises(UserError, match="other samples than nodes"):
        node_classification([tmp_path / "mae"], rings)
    with pytest.raises(UserError, match="other samples than graphs"):
        graph_classification([run], web)


def test_a_sampled_graph_trains_and_is_classified(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PROBE_EPOCHS", 60)
    done = pretrain(
        "graph",
        web,
        "simclr",
        out=tmp_path / "run",
        reader={"whole": 0, "fanout": [4, 3]},
        encoder={"name": "sage", "width": 16},
        view="node_drop",
        epochs=2,
        batch_size=18,
        quiet=True,
    )
    assert done.steps == 6
    assert node_classification([tmp_path / "run"], web, seeds=1)[0].mean > 0.5


def test_the_probe_chooses_by_validation_and_never_by_test() -> None:
    chance = np.random.default_rng(0)
    labels = np.arange(90) % 2
    x = (chance.standard_normal((90, 4)) + 3 * labels[:, None]).astype(np.float32)
    parts = {"train": np.arange(30), "val": np.arange(30, 60), "test": np.arange(60, 90)}
    val, test = evaluation.linear_probe(x, labels, parts, 0)
    assert val.tolist() == test.tolist() == [1.0] * 4
    flipped = labels.copy()
    flipped[60:] = 1 - labels[60:]
    val, test = evaluation.linear_probe(x, flipped, parts, 0)
    assert val.tolist() == [1.0] * 4
    assert test.tolist() == [0.0] * 4


def test_one_scale_for_all_seeds_is_chosen_by_validation() -> None:
    first = np.array([0.9, 0.5]), np.array([0.1, 0.8])
    second = np.array([0.4, 0.6]), np.array([0.2, 0.7])
    assert evaluation.at_best_scale([first, second]) == {"accuracy": (0.1, 0.2)}


def test_random_pairs_have_no_edge(web: str) -> None:
    known = np.array([1 * 10 + 2, 2 * 10 + 1])
    pairs = evaluation._strangers(known, 10, 40, np.random.default_rng(0))
    assert pairs.shape == (2, 40)
    assert not {(1, 2), (2, 1)} & set(map(tuple, pairs.T.tolist()))


def test_random_splits_do_not_overlap_and_leave_out_what_has_no_label() -> None:
    labels = np.where(np.arange(100) < 90, 1, -1)
    parts = evaluation.random_split(labels, 3)
    everyone = np.concatenate(list(parts.values()))
    assert sorted(everyone) == list(range(90))
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 9, "val": 9, "test": 72}


@pytest.mark.usefixtures("quick")
def test_commands(run: str, web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scores.json"
    assert main(f"graph evaluate-nodes {run} {web} --seeds 1 --json {file}".split()) == 0
    text = capsys.readouterr().out
    assert "public" in text
    assert "untrained" in text
    assert {row["split"] for row in json.loads(file.read_text())} == {"public"}
    assert main(f"graph cluster-nodes {run} {web} --seeds 1".split()) == 0
    assert main(f"graph evaluate-nodes {run} {web} --split other".split()) == 2
    assert "has no split 'other'; there are: public" in capsys.readouterr().err
    assert main(f"graph evaluate-graphs {run} {web} --classifier tree".split()) == 2
    assert main(f"graph inspect {web}".split()) == 0


def test_chance_outside_is_left_alone(run: str, web: str, quick: None) -> None:
    before = torch.get_rng_state()
    node_classification([run], web, seeds=1)
    assert torch.get_rng_state().equal(before)
