"""InfoNCE against loops over samples, closed forms, its queue, and NT-Xent."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow, unit
from unlabeled.errors import UserError
from unlabeled.terms import infonce
from unlabeled.terms.infonce import InfoNCE, info_nce


def naive(query: Tensor, key: Tensor, temperature: float, negatives: Tensor | None = None) -> Tensor:
    """−log exp(q·k⁺/τ) / Σ exp(q·k/τ) in loops."""
    losses = []
    for i, one in enumerate(query):
        own = (unit(one) @ unit(key[i]) / temperature).exp()
        if negatives is None:
            below = sum((unit(one) @ unit(k) / temperature).exp() for k in key)
        else:
            below = own + sum((unit(one) @ k / temperature).exp() for k in negatives)
        losses.append(-(own / below).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("scaled", [False, True])
def test_equals_the_naive_loss_and_its_gradients(scaled: bool) -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, hidden=7, out=5, predictor=True, scaled=scaled)
    z = torch.randn(2, 4, 16)

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        keys = [slow(term.projector, view) for view in inputs[0]]
        queries = [slow(term.predictor, key) for key in keys]
        loss = (naive(queries[1], keys[0], 0.3) + naive(queries[0], keys[1], 0.3)) / 2
        return loss * (0.6 if scaled else 1)

    compare(term, [z], lambda term, inputs: term(passes({"global": inputs[0]}))["loss"], expected)


def test_the_queue_holds_the_negatives() -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, hidden=7, out=5, queue=6)
    term.attach("ema")
    term.memory[:3] = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    term.filled.fill_(3)
    held = {"global": torch.randn(2, 4, 16)}

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        z = [slow(term.projector, view) for view in inputs[0]]
        keys = [slow(term.teacher_heads["projector"].module, view).detach() for view in held["global"].double()]
        return (naive(z[1], keys[0], 0.3, term.memory[:3]) + naive(z[0], keys[1], 0.3, term.memory[:3])) / 2

    loss = lambda term, inputs: term(passes({"global": inputs[0]}, "ema", held))["loss"]  # noqa: E731
    compare(term, [torch.randn(2, 4, 16)], loss, expected)


def test_the_queue_moves_once_a_step_and_forgets_the_oldest() -> None:
    term = InfoNCE(ToyEncoder(), hidden=7, out=5, queue=10)
    term.attach("ema")
    seen: list[Tensor] = []
    for step in range(3):
        for _ in range(2):  # micro-batches
            z = torch.randn(2, 2, 16)
            before = term.memory.clone()
            term(passes({"global": z}, "ema", {"global": z}))
            assert torch.equal(term.memory, before)
            keys = [unit(row) for view in z for row in term.teacher_heads["projector"].module(view)]
            seen += [row.detach() for row in keys]
        term.after_step(CLOCK)
        assert int(term.filled) == min(8 * (step + 1), 10)
    goal = {tuple(row.mul(1e4).round().tolist()) for row in torch.stack(seen[-10:])}
    assert {tuple(row.mul(1e4).round().tolist()) for row in term.memory} == goal
    assert int(term.pointer) == 24 % 10
    other = InfoNCE(ToyEncoder(), hidden=7, out=5, queue=10)
    other.attach("ema")
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert torch.equal(other._remembered(), term._remembered())


def test_nothing_enters_the_queue_in_eval_and_no_nan_ever() -> None:
    term = InfoNCE(ToyEncoder(), hidden=7, out=5, queue=10, norm=False)
    z = torch.randn(2, 4, 16)
    term.eval()(passes({"global": z}))
    term.after_step(CLOCK)
    assert int(term.filled) == 0
    z[0, 0] = torch.nan
    term.train()(passes({"global": z}))
    term.after_step(CLOCK)
    assert int(term.filled) == 7
    assert term.memory.isfinite().all()


def test_the_nearest_neighbour_asks() -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, hidden=7, out=5, queue=4, neighbours=True, predictor=True)
    term.memory[:3] = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    term.filled.fill_(3)
    z = torch.randn(2, 4, 16)

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        keys = [slow(term.projector, view) for view in inputs[0]]
        answers = [slow(term.predictor, key) for key in keys]
        near = [
            torch.stack([max(term.memory[:3], key=lambda m, k=k: float(m @ unit(k.detach()))) for k in view])
            for view in keys
        ]
        return (naive(near[0], answers[1], 0.3) + naive(near[1], answers[0], 0.3)) / 2

    loss = lambda term, inputs: term(passes({"global": inputs[0]}, "stop_gradient"))["loss"]  # noqa: E731
    compare(term, [z], loss, expected)


def test_closed_forms() -> None:
    z, t = torch.ones(5, 8), 0.2
    assert info_nce(z, z, t).item() == pytest.approx(math.log(5), rel=1e-5)
    e = torch.eye(6)
    assert info_nce(e, e, t).item() == pytest.approx(math.log(math.exp(1 / t) + 5) - 1 / t, rel=1e-4)
    assert info_nce(e, e, t, torch.zeros(0, 6)).item() == 0  # nothing to tell it from
    one, other = torch.randn(2, 8, 16)
    losses = [info_nce(one, one + noise * other, 0.2).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


@pytest.mark.parametrize("queue", [False, True])
def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch, queue: bool) -> None:
    q, k = torch.randn(2, 7, 8).requires_grad_().unbind()
    negatives = torch.nn.functional.normalize(torch.randn(9, 8), dim=-1) if queue else None
    whole = info_nce(q, k, 0.2, negatives)
    goal = torch.autograd.grad(whole, [q, k])
    monkeypatch.setattr(infonce, "CHUNK", 20)
    pieces = info_nce(q, k, 0.2, negatives)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, [q, k]), goal)


def test_one_whole_view_is_refused() -> None:
    with pytest.raises(UserError, match=r"views\.global=2"):
        InfoNCE(ToyEncoder(), hidden=7, out=5)(passes({"plain": torch.randn(1, 4, 16)}))
    with pytest.raises(UserError, match=r"infonce\.queue"):
        InfoNCE(ToyEncoder(), neighbours=True)
