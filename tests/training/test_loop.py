"""The loop on real digits: health, alarms, broken samples, broken gradients, precision, accumulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from conftest_training import metrics
from unlabeled import plugins
from unlabeled.config import config_from, method_data
from unlabeled.contract import Encoder
from unlabeled.data.batches import held_out
from unlabeled.errors import UserError
from unlabeled.methods import METHODS
from unlabeled.saved import load
from unlabeled.schedules import Clock
from unlabeled.terms.base import Survey, Term
from unlabeled.training.folder import RunFolder
from unlabeled.training.health import Alarm, measure
from unlabeled.training.pretrain import pretrain, run


def train(out: Path, method: Any = "simclr", data: str = "digits", **options: Any) -> Any:
    small = {"epochs": 1, "batch_size": 64, "log_every": 5, "quiet": True}
    return pretrain("toy", data, method, out=out, **{**small, **options})


TRAINED = (
    *("simclr", "byol", "simsiam", "barlow", "vicreg", "dino", "mae", "ijepa"),
    *("scarf", "supcon", "rotation", "data2vec"),  # changed content, labels,
    # known transforms, several masks and layers; every method on every encoder is the conformance tests' business
)


@pytest.mark.parametrize("method", TRAINED)
def test_healthy_runs_raise_no_alarm_and_learn(method: str, tmp_path: Path) -> None:
    outcome = train(tmp_path / "run", method, epochs=2, lr=1e-3, labels="digit" if method == "supcon" else "")
    assert outcome.alarms == ()
    lines = metrics(tmp_path / "run")
    losses = [line["loss"] for line in lines if "loss" in line]
    if method != "dino":  # its loss first rises towards ln K, while the centre finds its place
        assert losses[-1] < losses[0]
    health = [line for line in lines if "health/rank" in line]
    assert [line["step"] for line in health][:2] == [0, 7]
    short = {"step", "health/std", "health/rank", "health/dead", "health/uniformity"}
    assert all(short <= set(line) <= short | {"health/alignment"} for line in health)
    assert "health/alignment" in health[0]
    assert "health/alignment" in health[-1]


def test_simsiam_without_its_stop_gradient_collapses_and_is_called_out(tmp_path: Path) -> None:
    """Both ways that it shows: in the projections soon, in the encoder's embeddings at a higher rate."""
    fast = {"epochs": 4, "optimizer": "lars", "health_every": 25}
    method = {**method_data(METHODS["simsiam"]), "name": "plain", "teacher": "shared"}
    outcome = train(tmp_path / "run", method, lr=10.0, **fast)
    assert any("the projections of term 'regress' are becoming one" in alarm for alarm in outcome.alarms)
    assert any("all samples get nearly the same embedding" in alarm for alarm in outcome.alarms)
    with pytest.raises(UserError, match=r"collapse at step \d+: .* the run stopped as --on-collapse stop asks"):
        train(tmp_path / "stopped", method, lr=3.0, on_collapse="stop", **fast)
    assert train(tmp_path / "healthy", "simsiam", lr=3.0, **fast).alarms == (), "with it, nothing is wrong"


def test_alarm_tells_complete_from_dimensional_collapse() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(200, 16, generator=generator)
    line = torch.randn(200, 1, generator=generator) * torch.randn(1, 16, generator=generator)
    point = torch.ones(200, 16) + 1e-4 * healthy
    assert measure(healthy)["std"] == pytest.approx(1, abs=0.05)
    assert measure(healthy)["rank"] > 14
    assert measure(line)["rank"] == pytest.approx(1, abs=1e-3)
    for embeddings, word in ((line, "directions"), (point, "same embedding"), (healthy * torch.nan, "not finite")):
        alarm = Alarm()
        looks = [alarm.look(measure(x), step) for step, x in enumerate([healthy, embeddings, embeddings, embeddings])]
        assert looks[:2] == [None, None], "one bad look is not yet a collapse"
        assert looks[2] is not None
        assert word in looks[2]
        assert looks[3] is None, "it speaks once"
    assert all(Alarm(first=measure(healthy)).look(measure(healthy), step) is None for step in range(9))


def test_two_embeddings_are_no_collapse() -> None:
    """They vary along one direction before training and after it, and an encoder may begin with little more."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 16, generator=generator)
    alarm = Alarm()
    assert all(alarm.look(measure(pair), step) is None for step in range(9))
    few = {"std": 0.5, "rank": 1.6, "dead": 0.0}
    alarm = Alarm(first=few)
    assert [alarm.look({**few, "rank": rank}, 1) for rank in (1.3, 1.3, 1.1)] == [None] * 3
    assert "too few directions (rank 1.1, 1.6 before" in str(alarm.look({**few, "rank": 1.1}, 2))


@pytest.mark.parametrize(("samples", "looked_at"), [(2, 2), (24, 24), (79, 79), (80, 8), (1000, 100), (9000, 256)])
def test_few_samples_are_looked_at_and_trained_on(samples: int, looked_at: int) -> None:
    class Some:
        together = False

        def __len__(self) -> int:
            return samples

    trained, looked = held_out(cast("Any", Some()), 256, seed=0)
    both = set(trained.tolist()) & set(looked.tolist())
    assert len(looked) == looked_at
    assert len(both) == (looked_at if samples < 80 else 0)
    assert set(trained.tolist()) | set(looked.tolist()) == set(range(samples))


def test_broken_samples_are_replaced_counted_and_written_down(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"of 1797 samples cannot be read, more than --max-broken 0.1 allows.*truncated"
    ):
        train(tmp_path / "few", data="digits:3")
    for workers in (0, 2):
        with pytest.raises(
            UserError, match=r"^64 samples in a row cannot be read, the last is \d+ \(OSError: trunc"
        ) as said:
            train(tmp_path / f"none-{workers}", data="digits:1", workers=workers)
        assert "\n" not in str(said.value)
    outcome = train(tmp_path / "many", data="digits:3", max_broken=0.5)
    assert outcome.step == outcome.steps
    lines = [json.loads(line) for line in (tmp_path / "many" / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["index"] for line in lines}), "each is written once"
    assert all(line["index"] % 3 == 0 and line["reason"] == "OSError: truncated" for line in lines)
    assert len(lines) > 400


def test_a_gradient_that_is_not_finite_skips_the_step_then_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite for 5 steps in a row, up to step 5.*there is no checkpoint yet"):
        train(tmp_path / "run", "simclr", encoder={"name": "vit", "explode": 1}, checkpoint_every=2)
    with pytest.raises(UserError, match=r"up to step 8, .* the last good checkpoint is .*step-00000002.pt"):
        train(tmp_path / "saved", "simclr", encoder={"name": "vit", "explode": 4}, checkpoint_every=2)
    state = torch.load(tmp_path / "saved" / "checkpoints" / "step-00000002.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_a_skipped_step_changes_no_weight(optimizer: str, tmp_path: Path) -> None:
    from unlabeled.config import Training
    from unlabeled.training.optim import make_optimizer

    layer = torch.nn.Linear(3, 3)
    made = make_optimizer(layer, Training(optimizer=optimizer))  # type: ignore[arg-type]
    for broken, moves in ((0.0, True), (1.0, False), (0.0, True)):
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.full((3, 3), torch.nan if broken else 0.5)
        layer.bias.grad = torch.full((3,), torch.nan if broken else 0.5)
        made.found_inf = torch.tensor(broken)  # type: ignore[attr-defined]
        made.step()
        assert layer.weight.isfinite().all()
        assert torch.equal(before, layer.weight) is not moves


def test_accumulated_micro_batches_are_one_step(tmp_path: Path) -> None:
    """MAE's loss is a mean over samples with equally many hidden tokens, so two halves are the whole."""
    encoder = {"name": "vit", "dropout": 0.0}
    train(tmp_path / "one", "mae", steps=6, log_every=1, encoder=encoder)
    train(tmp_path / "two", "mae", steps=6, log_every=1, encoder=encoder, accumulate=2)
    one, two = (
        torch.tensor([line["loss"] for line in metrics(tmp_path / n) if "loss" in line]) for n in ("one", "two")
    )
    assert len(one) == 6
    assert torch.allclose(one, two, rtol=1e-4)


def test_bf16_trains(tmp_path: Path) -> None:
    train(tmp_path / "run", "byol", precision="bf16")
    assert metrics(tmp_path / "run")[-2]["loss"] < 2


def test_a_run_reproduces_from_its_config(tmp_path: Path) -> None:
    train(tmp_path / "one", {"name": "simclr", "set": {"contrast.temperature": 0.5}}, view={"share": 0.2}, steps=5)
    folder = RunFolder(tmp_path / "one")
    again = config_from(folder.read_config(), plugins.load("toy"))
    assert again.method.terms[0].options == {"temperature": 0.5}
    run(again, RunFolder(tmp_path / "two"), quiet=True)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")
    first, second = load(tmp_path / "one"), load(tmp_path / "two" / "encoder")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


def test_the_teacher_is_kept_where_the_method_says_so(tmp_path: Path) -> None:
    for method, keeps in (("dino", "teacher.module."), ("byol", "encoder.")):
        train(tmp_path / method, method, steps=5)
        state = torch.load(tmp_path / method / "checkpoints" / "step-00000005.pt", weights_only=True)["model"]
        kept = load(tmp_path / method).state_dict()
        assert all(torch.equal(value, state[keeps + name]) for name, value in kept.items())
        assert not torch.equal(state["encoder.enter.weight"], state["teacher.module.enter.weight"])


def test_terms_prepare_before_each_epoch_with_everything_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, Tensor]] = []

    class Prepared(Squares):  # type: ignore[misc, valid-type]
        def prepare(self, clock: Clock, survey: Survey) -> None:
            seen.append((clock.step, survey.instances()))

    registry = plugins.load("toy")
    monkeypatch.setitem(registry.terms, "contrast", Prepared)  # type: ignore[arg-type]
    train(tmp_path / "run", "simclr", epochs=2)
    assert [step for step, _ in seen] == [0, 25]
    assert seen[0][1].shape == (1797, 32)
    assert not torch.equal(seen[0][1], seen[1][1])
    assert seen[0][1].abs().sum(1).min() > 0


class Squares(Term):
    """A term whose loss is any function of the embeddings."""

    needs = frozenset({"instances"})

    def __init__(self, encoder: Encoder, *, temperature: float = 1.0):
        super().__init__(encoder)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, passes: Any) -> dict[str, Tensor]:
        return {"loss": sum(view.square().mean() for view in passes.instances("student")) * self.scale}


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=3, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_a_small_data_set_lowers_the_batch_and_one_sample_is_refused(tmp_path: Path, capsys: Any) -> None:
    train(tmp_path / "run", steps=2, batch_size=4096, quiet=False)
    assert "fewer than batch size 4096" in capsys.readouterr().out
    assert RunFolder(tmp_path / "run").read_config()["training"]["batch_size"] == 1618  # 1797 less a tenth held out
