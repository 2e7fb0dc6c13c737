"""Supervised contrast against loops, and NT-Xent where nobody shares a label."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow, unit
from unlabeled import plugins
from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.terms.contrast import nt_xent
from unlabeled.terms.supcon import SupCon, sup_con
from unlabeled.training.folder import RunFolder


def naive(views: list[Tensor], labels: list[int], temperature: float) -> Tensor:
    every = [(sample, unit(z)) for view in views for sample, z in enumerate(view)]
    losses = []
    for i, (sample, anchor) in enumerate(every):
        below = sum(((anchor @ z) / temperature).exp() for k, (_, z) in enumerate(every) if k != i)
        terms = []
        for j, (other, z) in enumerate(every):
            same = other == sample or (labels[other] == labels[sample] and labels[sample] >= 0)
            if j != i and same:
                terms.append(-(((anchor @ z) / temperature).exp() / below).log())
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 0], [3, -1, 3, -1, 2], [-1] * 5])
def test_equals_the_naive_loss_and_its_gradients(labels: list[int]) -> None:
    term = SupCon(ToyEncoder(), temperature=0.3, hidden=7, out=5)
    given = torch.tensor(labels)
    compare(
        term,
        [torch.randn(2, 5, 16)],
        lambda term, inputs: term(replace(passes({"global": inputs[0]}), labels=given))["loss"],
        lambda term, inputs: naive([slow(term.projector, view) for view in inputs[0]], labels, 0.3),
    )


@pytest.mark.parametrize("labels", [torch.arange(6), -torch.ones(6, dtype=torch.int64)])
def test_without_a_shared_label_it_is_nt_xent(labels: Tensor) -> None:
    z = torch.randn(3, 6, 8)
    torch.testing.assert_close(sup_con(z, labels, 0.2), nt_xent(z, 0.2))


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0] * 5, [-1] * 5])
def test_equal_embeddings_give_the_logarithm_of_the_others(labels: list[int]) -> None:
    z = torch.ones(2, 5, 8)
    assert sup_con(z, torch.tensor(labels), 0.1).item() == pytest.approx(math.log(9), rel=1e-5)


def test_classes_apart() -> None:
    """Samples of a class at one place, classes orthogonal."""
    labels, t = torch.tensor([0, 0, 0, 1, 1, 1]), 0.5
    z = torch.eye(2)[labels].expand(2, 6, 2)
    expected = math.log(5 * math.exp(1 / t) + 6) - 1 / t
    assert sup_con(z, labels, t).item() == pytest.approx(expected, rel=1e-5)
    assert sup_con(z, labels, t) < sup_con(z, torch.tensor([0, 1, 0, 1, 0, 1]), t)


def test_which_number_a_class_has_does_not_matter() -> None:
    z, labels = torch.randn(2, 6, 8), torch.tensor([0, 1, -1, 2, 0, 1])
    renamed = torch.tensor([700, 3, -1, 40, 700, 3])
    torch.testing.assert_close(sup_con(z, renamed, 0.2), sup_con(z, labels, 0.2))


def test_zero_embeddings_are_finite() -> None:
    z = torch.zeros(2, 4, 8, requires_grad=True)
    loss = sup_con(z, torch.tensor([0, 0, 1, -1]), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7), rel=1e-5)
    assert z.grad.isfinite().all()


def test_keeps_its_precision_under_autocast() -> None:
    z, labels = torch.randn(2, 16, 32), torch.arange(16) % 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = sup_con(z, labels, 0.05)
    torch.testing.assert_close(loss, sup_con(z, labels, 0.05), rtol=1e-5, atol=1e-5)


def test_one_sample_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'supcon'.*batch-size"):
        SupCon(ToyEncoder())(replace(passes({"global": torch.randn(2, 1, 16)}), labels=torch.zeros(1)))


def test_labels_come_from_a_flag_and_stay_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = plugins.load("tabular").examples(tmp_path / "example")[0]
    run = ["tabular", "pretrain", table, "--method", "supcon", "--epochs", "1", "--out", str(tmp_path / "run")]

    def refusal(*flags: str) -> str:
        assert main([*run, *flags]) != 0
        return capsys.readouterr().err

    assert "method 'supcon' learns from labels: say which with --labels" in refusal()
    assert "'churned', which the encoder sees" in refusal("--labels", "churned")
    assert "no column 'chruned'" in refusal("--labels", "chruned")
    assert main([*run, "--labels", "churned", "--exclude", "churned"]) == 0
    assert RunFolder(tmp_path / "run").read_config()["labels"] == "churned"
    assert main([*run[:2], "--resume", "--out", str(tmp_path / "run")]) == 0
