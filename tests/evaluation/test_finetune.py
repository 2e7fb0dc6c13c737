"""Fine-tuning against a plain loop, what it may not see, and what stands beside it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unlabeled.cli.main import main
from unlabeled.data.batches import Order
from unlabeled.errors import UserError
from unlabeled.evaluation import finetune as module
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.finetune import Budget, finetune
from unlabeled.evaluation.metrics import Metrics, mean_of
from unlabeled.evaluation.probes import linear_map
from unlabeled.evaluation.results import Result
from unlabeled.saved import describe, load
from unlabeled.schedules import warmup_cosine
from unlabeled.training.pretrain import pretrain

SMALL = Budget(epochs=1, lrs=(3e-3,))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label that no linear model can tell, a number, a place, two files to test on, and two runs."""
    folder = tmp_path_factory.mktemp("finetune")
    random = np.random.default_rng(0)
    for name, count in (("train", 240), ("test", 80), ("other", 80)):
        lines = ["a,b,label,size,place"]
        for number, (a, b) in enumerate(random.normal(size=(count, 2))):
            lines.append(f"{a:.4f},{b:.4f},{'yes' if a * b > 0 else 'no'},{100 + 10 * abs(a):.3f},{'xyz'[number % 3]}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for seed in range(2):
        made: dict[str, Any] = {
            "encoder": {"name": "mlp", "width": 16},
            "reader": {"exclude": ["label", "size", "place"]},
        }
        pretrain(
            "tabular",
            str(folder / "train.csv"),
            "mae",
            out=folder / f"run{seed}",
            seed=seed,
            steps=2,
            quiet=True,
            **made,
        )
    return folder


def measure(table: Path, runs: int = 1, budget: Budget = SMALL, label: str = "label", **options: Any) -> Result:
    if "groups" not in options:
        options["test"] = str(table / options.get("test", "test.csv"))
    folders = [table / f"run{number}" for number in range(runs)]
    options.setdefault("seeds", 1)
    return finetune(folders, str(table / "train.csv"), label=label, budget=budget, **options)


def features(encoder: Any, reader: Any) -> Any:
    return encoder(encoder.tokenize(reader.batch(range(len(reader))))).instances


def start_as_probe(head: torch.nn.Linear, x: Any, y: Any) -> None:
    """Logits of two classes that differ by what logistic regression says of standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y)
    nought = model.decision_function(np.zeros((1, x.shape[1])))
    slope = torch.tensor(np.stack([model.decision_function(one[None]) - nought for one in np.eye(x.shape[1])], 1))
    with torch.no_grad():
        head.weight.copy_(torch.cat([-slope, slope]) / 2)
        head.bias.copy_(torch.tensor([-nought[0], nought[0]]) / 2)


def by_hand(table: Path, rate: float, share: float, decay: float, pretrained: bool) -> tuple[float, float]:
    """Accuracy and AUC of the same model trained by a plain loop."""
    one = describe(table / "run0")
    train, test = (one.make_reader(str(table / f"{name}.csv")) for name in ("train", "test"))
    y, truth = (torch.tensor((np.asarray(reader.labels("label")) == "yes").astype(int)) for reader in (train, test))
    order = Order(torch.arange(240), 64, 0)
    encoder = load(table / "run0") if pretrained else one.make_encoder(1000)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 2)
    if pretrained:
        start_as_probe(head, features(encoder, train).detach().numpy(), y.numpy())
    encoder.train()
    matrices, vectors = ([p for p in encoder.parameters() if (p.ndim > 1) == many] for many in (True, False))
    parts = [(matrices, share, decay), (vectors, share, 0.0), ([head.weight], 1.0, decay), ([head.bias], 1.0, 0.0)]
    optimizers = [torch.optim.AdamW(p, lr=rate, weight_decay=d) for p, _, d in parts]
    for step in range(100):
        for (_, scale, _), optimizer in zip(parts, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = scale * warmup_cosine(step, 100, rate, 10)
            optimizer.zero_grad()
        _, rows = order.share(step)
        F.cross_entropy(head(encoder(encoder.tokenize(train.batch(rows.tolist()))).instances), y[rows]).backward()
        torch.nn.utils.clip_grad_norm_([*encoder.parameters(), *head.parameters()], 1.0)
        for optimizer in optimizers:
            optimizer.step()
    out = head(features(encoder.eval(), test)).detach()
    return float((out.argmax(1) == truth).double().mean()), float(roc_auc_score(truth, out[:, 1] - out[:, 0]))


def test_it_is_a_plain_loop(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a pair of test samples or two, since the head's start is found to a tolerance."""
    monkeypatch.setattr("unlabeled.evaluation.probes.PENALTIES", (1.0,))
    for rate, share in ((3e-3, 1.0), (3e-2, 0.1)):
        found = measure(table, budget=Budget(epochs=1, lrs=(rate,), encoder_rate=share, weight_decay=0.1))
        for name, scale in (("trained (mae)", share), ("from scratch", 1.0)):
            accuracy, auc = by_hand(table, rate, scale, 0.1, name != "from scratch")
            assert found.value(name, "finetune", "accuracy").mean == pytest.approx(accuracy, abs=1 / 80 + 1e-9)
            assert found.value(name, "finetune", "auc").mean == pytest.approx(auc, abs=3e-3)


@pytest.mark.parametrize("label", ["label", "size", "place"])
def test_at_a_vanishing_rate_it_is_the_frozen_probe(table: Path, label: str) -> None:
    """Of two classes, of three, and of a number."""
    result = measure(table, label=label, budget=Budget(epochs=1, lrs=(1e-9,)))
    metric = "r2" if label == "size" else "accuracy"
    tuned, frozen = (result.value("trained (mae)", probe, metric).mean for probe in ("finetune", "linear"))
    assert tuned == pytest.approx(frozen, abs=1e-4)


def test_a_class_that_no_row_is_of_is_not_said() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for labels in (np.arange(50) % 2 * 2, np.arange(50) % 3 + 1):
        weight, bias = linear_map(x, labels, 5, 0)
        assert set((x @ weight.T + bias).argmax(1)) <= set(labels.tolist())


def test_it_learns_what_a_linear_probe_cannot(table: Path) -> None:
    result = measure(table, budget=Budget(epochs=60, lrs=(1e-2,), encoder_rate=1.0))
    assert result.value("trained (mae)", "finetune", "accuracy").mean > 0.85
    assert result.value("trained (mae)", "finetune", "auc").mean > 0.9
    assert result.value("from scratch", "finetune", "accuracy").mean > 0.85
    plain = evaluate([table / "run0"], str(table / "train.csv"), test=str(table / "test.csv"), label="label", seeds=1)
    assert result.value("trained (mae)", "linear", "accuracy") == plain.value("trained (mae)", "linear", "accuracy")
    raw = plain.value("raw", "linear", "accuracy").mean
    assert raw < 0.7, "the label is the sign of a product"


def test_an_encoder_at_rate_nought_stays_as_it_is(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[Any] = []
    plain = module.Tuner._predict

    def spied(self: Any, model: Any, *rest: Any) -> Any:
        models.append(model)
        return plain(self, model, *rest)

    monkeypatch.setattr(module.Tuner, "_predict", spied)
    measure(table, budget=Budget(epochs=1, lrs=(1e-2,), encoder_rate=0.0))
    before, scratch = load(table / "run0").state_dict(), describe(table / "run0").make_encoder(1000).state_dict()
    frozen, learnt = (model.encoder.state_dict() for model in models)
    assert all(torch.equal(before[name], frozen[name]) for name in before)
    assert any(not torch.equal(scratch[name], learnt[name]) for name in scratch), "from scratch the encoder learns"


def test_the_rate_is_chosen_without_the_test_rows(table: Path) -> None:
    """One rate that learns and two that cannot; another test file chooses the same and the choice is kept."""
    budget = Budget(epochs=10, lrs=(1e-7, 1e-2, 1e-6), encoder_rate=1.0)
    results = [measure(table, budget=budget, test=name) for name in ("test.csv", "other.csv")]
    rows = [result.value("trained (mae)", "finetune", "accuracy") for result in results]
    assert rows[0].rates == rows[1].rates == (1e-2,)
    assert rows[0].values != rows[1].values
    alone = measure(table, budget=Budget(epochs=10, lrs=(1e-2,), encoder_rate=1.0))
    assert alone.value("trained (mae)", "finetune", "accuracy").values == rows[0].values, "then all rows are trained on"


def test_the_rows_chosen_by_are_no_test_rows_and_none_that_are_trained_on(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[int], set[int], bool]] = []

    def spied(self: Any, encoder: Any, task: Any, *rest: Any) -> Metrics:
        seen.append((set(task.train_rows.tolist()), set(task.test_rows.tolist()), task.test is task.train))
        return {"accuracy": mean_of(np.ones(len(task.test_rows)))}

    monkeypatch.setattr(module.Tuner, "_fitted", spied)
    measure(table, budget=Budget(lrs=(1e-3, 1e-2)), test="test.csv", shots=("50%",))
    assert len(seen) == 6, "two rates and the best, of two models"
    for inner, whole in ((seen[0], seen[2]), (seen[1], seen[5])):
        assert inner[0] | inner[1] == whole[0]
        assert not inner[0] & inner[1]
        assert (len(inner[0]), len(inner[1]), inner[2], whole[2]) == (96, 24, True, False)


@pytest.mark.parametrize("label", ["label", "size"])
def test_sixteen_bits_are_enough_and_change_no_weights(
    table: Path, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Any]] = []
    plain = module.Model.forward

    def spied(self: Any, batch: Any) -> Any:
        out = plain(self, batch)
        seen.append((out.dtype, self.head.weight.dtype))
        return out

    monkeypatch.setattr(module.Model, "forward", spied)
    found = [measure(table, label=label, budget=replace(SMALL, precision=one)) for one in ("fp32", "bf16")]
    assert set(seen) == {(torch.float32, torch.float32), (torch.bfloat16, torch.float32)}
    metric = "r2" if label == "size" else "auc"
    exact, short = (one.value("trained (mae)", "finetune", metric).mean for one in found)
    assert exact != short
    assert short == pytest.approx(exact, abs=0.05)


def test_numbers_are_regressed_on_their_own_scale(table: Path) -> None:
    result = measure(table, label="size", budget=Budget(epochs=60, lrs=(1e-2,), encoder_rate=1.0))
    assert result.majority is None
    assert result.value("trained (mae)", "finetune", "r2").mean > 0.8


def test_values_are_one_a_run_and_seed_or_group(table: Path) -> None:
    result = measure(table, runs=2, seeds=2, shots=("3", "100%"))
    tuned = [row for row in result.rows if row.probe == "finetune" and row.metric == "accuracy"]
    assert [(row.features, row.shots, len(row.values), len(row.rates), row.n) for row in tuned] == [
        ("trained (mae)", "3", 4, 4, 6),
        ("from scratch", "3", 2, 2, 6),
        ("trained (mae)", "100%", 4, 4, 240),
        ("from scratch", "100%", 2, 2, 240),
    ]
    groups = measure(table, groups="place")
    assert groups.groups == ("x", "y", "z")
    assert len(groups.value("trained (mae)", "finetune", "accuracy").values) == 3
    assert groups == measure(table, groups="place"), "a result is a function of its arguments"


def test_workers_change_nothing_and_views_do(table: Path) -> None:
    one, two, other = (
        measure(table, budget=Budget(epochs=1, lrs=(1e-2,), workers=workers, views=views))  # type: ignore[arg-type]
        for workers, views in ((0, "plain"), (2, "plain"), (0, "global"))
    )
    assert one == two
    assert one != other


def test_nodes_of_one_graph_are_trained_on_together(tmp_path: Path) -> None:
    """Two communities of noisy nodes; the labelled ones alone are learnt from, and the whole graph is read."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    edges = [(u, v) for u in range(60) for v in range(u) if random.random() < (0.3 if labels[u] == labels[v] else 0.02)]
    x = (labels[:, None] - 0.5 + random.normal(size=(60, 4))).astype(np.float32)
    np.savez(tmp_path / "graph.npz", x=x, edge_index=np.array(edges).T, y=labels)
    data = str(tmp_path / "graph.npz")
    pretrain("graph", data, "grace", out=tmp_path / "run", steps=1, quiet=True)
    reader = describe(tmp_path / "run").make_reader(data)
    assert reader.together
    result = finetune([tmp_path / "run"], data, label="label", seeds=1, budget=Budget(lrs=(1e-2,), encoder_rate=1.0))
    assert result.value("from scratch", "finetune", "accuracy").mean > 0.8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1"),
        ({"lrs": ()}, "learning rates above 0, not none"),
        ({"lrs": (1e-3, -1.0)}, "learning rates above 0, not 0.001, -1.0"),
        ({"encoder_rate": 3}, "encoder_rate is a share"),
        ({"views": "loca"}, "no views is called 'loca'"),
        ({"precision": "bf61"}, "no precision is called 'bf61'; did you mean bf16"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Budget(**options)


def test_what_diverges_everywhere_is_one_sentence(table: Path) -> None:
    with pytest.raises(UserError, match=r"diverged at every learning rate of \(1e\+30,\); give lower --lrs"):
        measure(table, budget=Budget(epochs=1, lrs=(1e30,)))


def test_the_command_line(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"tabular evaluate {table}/run0 {table}/train.csv --label label --seeds 1 --test {table}/test.csv"
    assert (
        main([*line.split(), "--protocol", "finetune", "--epochs=1", "--lrs=1e-3,1e-2", f"--json={table}/r.json"]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("trained (mae), 100% of the labels, seed 0: accuracy 0.")
    head = next(one for one in out.splitlines() if one.startswith("features"))
    assert re.split(r"\s{2,}", head)[1:] == ["finetune accuracy", "finetune auc", "linear accuracy", "linear auc"]
    rows = json.loads((table / "r.json").read_text())["rows"]
    (rate,) = next(row["rates"] for row in rows if row["features"] == "from scratch")
    assert rate in (1e-3, 1e-2)
    assert f"learning rates chosen on training rows: from scratch: {rate:g}\n" in out
    for flags, sentence in (
        ("--lrs 1e-2", "--lrs is of --protocol finetune, not of probe"),
        ("--protocol finetune --ood x", "--ood is of --protocol ood, not of finetune"),
        ("--protocol fintune", "no protocol is called 'fintune'; did you mean finetune?"),
    ):
        assert main([*line.split(), *flags.split()]) == 2
        assert sentence in capsys.readouterr().err
