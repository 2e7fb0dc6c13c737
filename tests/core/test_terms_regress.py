"""Cosine regression, as BYOL and as SimSiam, against loops and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow, unit
from unlabeled.branches import Branch
from unlabeled.errors import UserError
from unlabeled.terms.base import Term
from unlabeled.terms.regress import Regress, cosine_regression, direct_weight


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


def slow_weight(F: Tensor, floor: float) -> Tensor:
    """Σⱼ (√(sⱼ/max s) + ε) uⱼuⱼᵀ over eigenpairs found by the general solver."""
    s, U = torch.linalg.eig(F)
    s, U = s.real, U.real
    return sum(((s[j].clamp(min=0) / s.max()).sqrt() + floor) * torch.outer(U[:, j], U[:, j]) for j in range(len(s)))


def direct(**options: float) -> Regress:
    term = Regress(ToyEncoder(), hidden=7, out=5, direct=True, **options)
    term.attach("ema")
    return term


def test_directpred_equals_the_naive_loss_and_its_gradients() -> None:
    term = direct(floor=0.2)
    theirs, before = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    term(passes({"global": before}, "ema", {"global": theirs}))
    term.after_step(CLOCK)

    def expected(term: Term, inputs: list[Tensor]) -> Tensor:
        z = torch.cat([slow(term.projector, view) for view in before.double()]).detach()
        W = slow_weight(sum(torch.outer(row, row) for row in z) / len(z), 0.2)
        goals = [slow(term.teacher_heads["projector"].module, view).detach() for view in theirs.double()]
        return naive([slow(term.projector, view) @ W.T for view in inputs[0]], goals)

    loss = lambda term, x: term(passes({"global": x[0]}, "ema", {"global": theirs}))["loss"]  # noqa: E731
    compare(term, [torch.randn(2, 6, 16)], loss, expected, rtol=1e-3)


def test_directpred_follows_its_inputs_once_a_step() -> None:
    term = direct(decay=0.3)
    F = torch.zeros(5, 5)
    for _ in range(2):
        found = []
        for _ in range(3):  # micro-batches
            z = torch.randn(2, 6, 16)
            term(passes({"global": z}, "ema", {"global": z}))
            rows = torch.cat([term.projector(view) for view in z]).detach()
            found.append(torch.stack([torch.outer(row, row) for row in rows]).mean(0))
            torch.testing.assert_close(term.predictor.correlation, F)
        term.after_step(CLOCK)
        F = 0.3 * F + 0.7 * torch.stack(found).mean(0)
        torch.testing.assert_close(term.predictor.correlation, F)
        torch.testing.assert_close(term.predictor.weight, slow_weight(F, 0.1), rtol=1e-3, atol=1e-4)
    other = direct()
    other.load_state_dict(term.state_dict())
    assert torch.equal(other.predictor.weight, term.predictor.weight)


def test_directpred_rests_in_eval_and_after_a_step_that_broke() -> None:
    term = direct()
    z = torch.randn(2, 6, 16)
    term.eval()(passes({"global": z}, "ema", {"global": z}))
    term.after_step(CLOCK)
    term.train()(passes({"global": z * torch.nan}, "ema", {"global": z}))
    term.after_step(CLOCK)
    assert term.predictor.correlation.abs().max() == 0
    torch.testing.assert_close(term.predictor.weight, torch.eye(5))


def test_the_direct_predictor_of_known_correlations() -> None:
    q, _ = torch.linalg.qr(torch.randn(4, 4))
    s = torch.tensor([4.0, 1.0, 0.25, 0.0])
    W = direct_weight(q * s @ q.T, 0.1)
    torch.testing.assert_close(W, q * torch.tensor([1.1, 0.6, 0.35, 0.1]) @ q.T, rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(direct_weight(100 * q * s @ q.T, 0.1), W, rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(direct_weight(3 * torch.eye(4), 0.1), 1.1 * torch.eye(4))
    torch.testing.assert_close(direct_weight(torch.zeros(4, 4), 0.1), torch.eye(4))


def test_the_direct_predictor_has_nothing_to_learn() -> None:
    term = direct()
    assert not list(term.predictor.parameters())
    z = torch.zeros(2, 6, 16, requires_grad=True)
    for _ in range(2):
        term(passes({"global": z}, "ema", {"global": z.detach()}))["loss"].backward()
        term.after_step(CLOCK)
    assert z.grad.isfinite().all()
