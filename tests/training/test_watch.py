"""What a run is watched by: right by its formulas, cheap, and without a trace in the weights."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest_training import metrics
from unlabeled import plugins
from unlabeled.errors import UserError
from unlabeled.training.health import alignment_of, uniformity_of
from unlabeled.training.pretrain import pretrain
from unlabeled.training.watch import SHARE, Sources, Watch


def train(out: Path, **options: Any) -> Any:
    small = {"steps": 12, "batch_size": 64, "log_every": 4, "health_every": 3, "quiet": True}
    return pretrain("toy", "digits", "simclr", out=out, **{**small, **options})


def test_alignment_and_uniformity_are_their_formulas() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 5, generator=draw) for _ in range(2))
    a, b = ([row / np.linalg.norm(row) for row in z.double().numpy()] for z in (x, y))
    assert alignment_of(x, y) == pytest.approx(np.mean([((p - q) ** 2).sum() for p, q in zip(a, b, strict=True)]))
    pairs = [math.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in range(9) for j in range(i)]
    assert uniformity_of(x) == pytest.approx(math.log(np.mean(pairs)))
    assert uniformity_of(torch.ones(4, 3)) == 0
    assert alignment_of(x, -x) == pytest.approx(4)
    many = torch.nn.functional.normalize(torch.randn(4000, 64, generator=draw), dim=-1)
    assert uniformity_of(many) == pytest.approx(-4 + 8 / 64, abs=0.01), "E exp(-2 (2 - 2 c)) for c of variance 1/D"
    assert math.isnan(uniformity_of(torch.full((3, 2), torch.nan)))


class Plane(torch.nn.Module):
    """An "encoder" whose instances are the first pixels."""

    def tokenize(self, batch: Any) -> Any:
        return batch

    def forward(self, batch: Any) -> Any:
        from unlabeled.contract import Encoded

        (values,) = [x for x in batch.values() if x.is_floating_point()]
        return Encoded(None, values.flatten(1)[:, 20:40])


def test_neighbours_leave_the_sample_itself_out() -> None:
    registry = plugins.load("toy")
    reader = registry.make("reader", None, "digits")
    view = registry.make("view", None, reader.facts)
    sources = Sources(reader, view, registry, torch.device("cpu"), 50)
    watch = Watch.of(sources, torch.arange(40), "digit", 120, seed=3)
    assert watch.labelled is not None
    numbers, labels = watch.labelled
    assert len(numbers) == 120
    assert (numbers.diff() > 0).all()
    encoder: Any = Plane()
    x = torch.stack(
        [next(v for v in reader[int(n)].values() if v.is_floating_point()).flatten()[20:40] for n in numbers]
    )
    x = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    right = 0
    for row in range(120):
        order = sorted((-float(x[row] @ x[other]), other) for other in range(120) if other != row)[:20]
        votes = np.zeros(10)
        for similarity, other in order:
            votes[labels[other]] += math.exp(-similarity / 0.07)
        right += votes.argmax() == labels[row]
    assert watch.full(encoder)["knn accuracy"] == pytest.approx(right / 120)
    assert 0.4 < right / 120 < 1


def test_watching_leaves_no_trace_in_the_weights(tmp_path: Path) -> None:
    for name, options in (("plain", {}), ("watched", {"watch": "digit", "health_every": 1})):
        train(tmp_path / name, **options)
    plain, watched = (load_file(tmp_path / name / "encoder" / "encoder.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    lines = [line for line in metrics(tmp_path / "watched") if "health/knn accuracy" in line]
    assert [line["step"] for line in lines] == [0, 12], "dear looks are few in a short run"
    assert all(0 <= line["health/knn accuracy"] <= 1 for line in lines)
    assert "health/knn accuracy" not in str(metrics(tmp_path / "plain"))


def test_a_resumed_run_looks_when_an_unbroken_one_does(tmp_path: Path) -> None:
    options = {
        "watch": "digit",
        "watch_samples": 10,
        "health_samples": 20,
        "steps": 40,
        "schedule": "constant",
        "warmup": 4,
    }
    train(tmp_path / "whole", **options)
    train(tmp_path / "parts", **{**options, "steps": 20})
    train(tmp_path / "parts", **options, resume=True)
    looks = [[line for line in metrics(tmp_path / name) if "health/alignment" in line] for name in ("whole", "parts")]
    assert looks[0][-1] == looks[1][-1]
    assert 2 <= len(looks[0]) < 14


@pytest.mark.parametrize(("looks", "trained", "expected"), [(20, 10**9, 1), (20, 64 * 2 * 300, 4), (20, 64, 20)])
def test_dear_looks_cost_little(looks: int, trained: int, expected: int) -> None:
    watch = Watch(None, torch.arange(60))  # type: ignore[arg-type]
    every = watch.every(looks, trained)
    assert every == expected
    spent = looks // every * watch.passes
    assert spent <= SHARE * 3 * trained or every == looks


def test_looks_are_as_many_as_the_run_can_pay() -> None:
    watch = Watch(None, torch.arange(60))  # type: ignore[arg-type]
    assert [watch.looks(trained) for trained in (64, 40_000, 10**9)] == [8, 14, 20]


def test_what_watching_took_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", quiet=False)
    assert re.search(r"watching took \d+\.\d% of the time", capsys.readouterr().err)


def test_labels_that_cannot_be_watched_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,c\n" + "\n".join(f"{n},{n % 3},{'x' if n < 2 else ''}" for n in range(40)))
    options: dict[str, Any] = {"reader": {"exclude": ["c"]}, "steps": 2, "quiet": True}
    for label, sentence in (("b", "a probe of it proves nothing"), ("d", "'d'"), ("c", "one class only")):
        with pytest.raises(UserError, match=sentence):
            pretrain("tabular", table, "mae", out=tmp_path / label, watch=label, **options)
        assert not (tmp_path / label / "config.yaml").exists()
