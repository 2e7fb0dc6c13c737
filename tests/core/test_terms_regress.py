"""Cosine regression, as BYOL and as SimSiam, against loops and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow, unit
from unlabeled.branches import Branch
from unlabeled.errors import UserError
from unlabeled.terms.base import Term
from unlabeled.terms.regress import Regress, cosine_regression


def naive(predicted: list[Tensor], target: list[Tensor]) -> Tensor:
    """‖p̂ − t̂‖² of every student view against every other teacher view, in loops."""
    losses = []
    for j, there in enumerate(target):
        for i, here in enumerate(predicted):
            if i != j:
                losses += [(unit(p) - unit(t)).square().sum() for p, t in zip(here, there, strict=True)]
    return torch.stack(losses).mean()


def slow_predictions(term: Term, z: Tensor) -> list[Tensor]:
    return [slow(term.predictor, slow(term.projector, view)) for view in z]


@pytest.mark.parametrize("count", [2, 3])
def test_byol_equals_the_naive_loss_and_its_gradients(count: int) -> None:
    term = Regress(ToyEncoder(), hidden=7, out=5)
    term.attach("ema")
    for weight in term.projector.parameters():  # the teacher's head is a copy that has stayed behind
        torch.nn.init.normal_(weight, std=0.5)
    theirs = torch.randn(2, 4, 16)
    teacher = term.teacher_heads["projector"].module
    goals = [slow(teacher.double(), view) for view in theirs.double()]
    teacher.float()
    compare(
        term,
        [torch.randn(count, 4, 16)],
        lambda term, x: (
            term(passes({"global": x[0][:2], "local": x[0][2:]}, "ema", {"global": theirs}))["loss"]
            if count > 2
            else term(passes({"global": x[0]}, "ema", {"global": theirs}))["loss"]
        ),
        lambda term, x: naive(slow_predictions(term, x[0]), goals),
    )


@pytest.mark.parametrize("branch", ["stop_gradient", "shared"])
def test_simsiam_equals_the_naive_loss_and_its_gradients(branch: Branch) -> None:
    def expected(term: Term, inputs: list[Tensor]) -> Tensor:
        goals = [slow(term.projector, view) for view in inputs[0]]
        goals = [goal.detach() for goal in goals] if branch == "stop_gradient" else goals
        return naive(slow_predictions(term, inputs[0]), goals)

    compare(
        Regress(ToyEncoder(), hidden=7, out=5, layers=3, end_norm=True, predictor_hidden=3),
        [torch.randn(2, 6, 16)],
        lambda term, x: term(passes({"global": x[0]}, branch))["loss"],
        expected,
        rtol=1e-3,  # three batch norms in a row
    )


def test_is_simsiams_negative_cosine_times_two_plus_two() -> None:
    p, t = torch.randn(2, 2, 6, 8)
    cosine = [torch.nn.functional.cosine_similarity(p[i], t[1 - i]).mean() for i in range(2)]
    simsiam = -(cosine[0] + cosine[1]) / 2
    torch.testing.assert_close(cosine_regression(list(p), list(t)), 2 * simsiam + 2)


def test_agreement_gives_zero_and_opposites_give_four() -> None:
    z = torch.randn(6, 8)
    assert cosine_regression([z, z], [z, 3 * z]).item() == pytest.approx(0, abs=1e-6)
    assert cosine_regression([z, z], [-z, -z]).item() == pytest.approx(4, rel=1e-6)


def test_a_view_is_not_compared_with_itself() -> None:
    a, b = torch.randn(2, 6, 8)
    assert cosine_regression([a, b], [b, a]).item() == pytest.approx(0, abs=1e-6)


def test_falls_when_views_agree() -> None:
    a, b = torch.randn(2, 8, 16)
    losses = [cosine_regression([a, a], [a + noise * b] * 2).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_no_gradient_reaches_a_held_teacher() -> None:
    term = Regress(ToyEncoder(), predictor=False)
    z, t = torch.randn(2, 2, 6, 16)
    t.requires_grad_()
    term.attach("ema")
    term(passes({"global": z}, "ema", {"global": t}))["loss"].backward()
    assert t.grad is None
    assert all(weight.grad is None for weight in term.teacher_heads.parameters())


def test_zero_embeddings_are_finite() -> None:
    z = torch.zeros(4, 8, requires_grad=True)
    loss = cosine_regression([z, z], [z.detach(), z.detach()])
    loss.backward()
    assert loss.item() == 2
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("branch", ["ema", "stop_gradient"])
def test_one_sample_is_refused_by_name(branch: Branch) -> None:
    term = Regress(ToyEncoder())
    term.attach(branch)
    z = torch.randn(2, 1, 16)
    with pytest.raises(UserError, match=r"'regress'.*batch-size"):
        term(passes({"global": z}, branch, {"global": z} if branch == "ema" else None))
