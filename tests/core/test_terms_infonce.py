"""InfoNCE against loops over samples, closed forms, its past keys, and NT-Xent."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow, unit
from unlabeled.branches import Passes
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.terms import infonce
from unlabeled.terms.contrast import nt_xent
from unlabeled.terms.infonce import InfoNCE, info_nce, nearest


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


def units(rows: int, width: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width), dim=-1)


def keys_of(term: InfoNCE, views: Tensor) -> Tensor:
    """The teacher's unit keys of [K, M, D], view after view."""
    head = term.teacher_heads["projector"].module if term.teacher_heads else term.projector
    return torch.stack([unit(row) for view in views for row in head(view).detach()])


@pytest.mark.parametrize("scaled", [False, True])
def test_equals_the_naive_loss_and_its_gradients(scaled: bool) -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, out=5, predictor=True, scaled=scaled)

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        keys = [slow(term.projector, view) for view in inputs[0]]
        queries = [slow(term.predictor, key) for key in keys]
        loss = (naive(queries[1], keys[0], 0.3) + naive(queries[0], keys[1], 0.3)) / 2
        return loss * (0.6 if scaled else 1)

    compare(
        term,
        [torch.randn(2, 4, 16)],
        lambda term, inputs: term(passes({"global": inputs[0]}))["loss"],
        expected,
        rtol=1e-3,  # two batch norms in a row
    )


def test_past_keys_are_the_negatives() -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, out=5, queue=6)
    term.attach("ema")
    term.memory[:3] = units(3, 5)
    term.filled.fill_(3)
    held = {"global": torch.randn(2, 4, 16)}

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        z = [slow(term.projector, view) for view in inputs[0]]
        keys = [slow(term.teacher_heads["projector"].module, view).detach() for view in held["global"].double()]
        return (naive(z[1], keys[0], 0.3, term.memory[:3]) + naive(z[0], keys[1], 0.3, term.memory[:3])) / 2

    loss = lambda term, inputs: term(passes({"global": inputs[0]}, "ema", held))["loss"]  # noqa: E731
    compare(term, [torch.randn(2, 4, 16)], loss, expected)


def test_the_nearest_past_key_asks() -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, out=5, neighbours=4, predictor=True)
    term.memory[:3] = units(3, 5)
    term.filled.fill_(3)

    def expected(term: InfoNCE, inputs: list[Tensor]) -> Tensor:
        keys = [slow(term.projector, view) for view in inputs[0]]
        answers = [slow(term.predictor, key) for key in keys]
        near = [
            torch.stack([max(term.memory[:3], key=lambda m, k=k: float(m @ unit(k.detach()))) for k in view])
            for view in keys
        ]
        return (naive(near[0], answers[1], 0.3) + naive(near[1], answers[0], 0.3)) / 2

    loss = lambda term, inputs: term(passes({"global": inputs[0]}, "stop_gradient"))["loss"]  # noqa: E731
    compare(term, [torch.randn(2, 4, 16)], loss, expected, rtol=1e-3)


def hidden_from_the_student(seen: Tensor, whole: Tensor) -> Passes:
    """One view, of which the student does not see all."""
    found = passes({"plain": seen}, "shared", {"plain": whole})
    nothing = torch.zeros(len(seen[0]), 1, dtype=torch.bool)
    return replace(found, student={"plain": [replace(found.student["plain"][0], hidden=Hidden(nothing, (nothing,)))]})


def test_with_one_view_the_whole_look_asks_among_the_changed_ones() -> None:
    term = InfoNCE(ToyEncoder(), temperature=0.3, norm=False, out=5)
    compare(
        term,
        [torch.randn(1, 4, 16), torch.randn(1, 4, 16)],
        lambda term, inputs: term(hidden_from_the_student(*inputs))["loss"],
        lambda term, inputs: naive(*(slow(term.projector, x[0]) for x in reversed(inputs)), 0.3),
    )


def test_past_keys_move_once_a_step_and_the_oldest_are_forgotten() -> None:
    term = InfoNCE(ToyEncoder(), out=5, queue=10)
    term.attach("ema")
    seen = torch.zeros(0, 5)
    for step in range(3):
        for _ in range(2):  # micro-batches
            z = torch.randn(2, 2, 16)
            before = term.memory.clone()
            term(passes({"global": z}, "ema", {"global": z}))
            assert torch.equal(term.memory, before)
            seen = torch.cat([seen, keys_of(term, z)])
        term.after_step(CLOCK)
        assert int(term.filled) == min(8 * (step + 1), 10)
    assert int(term.pointer) == 24 % 10
    torch.testing.assert_close(term.memory.roll(-4, 0), seen[-10:])
    other = InfoNCE(ToyEncoder(), out=5, queue=10)
    other.attach("ema")
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    for one in (term, other):
        one.eval()
    z = {"global": torch.randn(2, 4, 16)}
    assert torch.equal(other(passes(z, "ema", z))["loss"], term(passes(z, "ema", z))["loss"])


def test_more_keys_than_places_leave_the_last() -> None:
    term = InfoNCE(ToyEncoder(), out=5, queue=3)
    z = torch.randn(2, 4, 16)
    term(passes({"global": z}))
    term.after_step(CLOCK)
    torch.testing.assert_close(term.memory, keys_of(term, z)[-3:])


def test_neighbours_are_of_the_first_view() -> None:
    term = InfoNCE(ToyEncoder(), out=5, neighbours=9)
    z = torch.randn(2, 4, 16)
    term(passes({"global": z}, "stop_gradient"))
    term.after_step(CLOCK)
    assert int(term.filled) == 4
    torch.testing.assert_close(term.memory[:4], keys_of(term, z[:1]))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_nothing_is_remembered_in_eval_nor_of_a_step_that_broke(broken: float) -> None:
    term = InfoNCE(ToyEncoder(), out=5, queue=10, norm=False)
    z = torch.randn(2, 4, 16)
    term.eval()(passes({"global": z}))
    term.after_step(CLOCK)
    assert int(term.filled) == 0
    z[0, 0, 0] = broken
    term.train()(passes({"global": z}))
    term.after_step(CLOCK)
    assert (int(term.filled), int(term.pointer)) == (0, 0)
    assert term.memory.abs().max() == 0


def test_closed_forms() -> None:
    z, t = torch.ones(5, 8), 0.2
    assert info_nce(z, z, t).item() == pytest.approx(math.log(5), rel=1e-5)
    e = torch.eye(6)
    assert info_nce(e, e, t).item() == pytest.approx(math.log(math.exp(1 / t) + 5) - 1 / t, rel=1e-4)
    ones = torch.nn.functional.normalize(torch.ones(7, 8), dim=-1)
    assert info_nce(z, z, t, ones).item() == pytest.approx(math.log(8), rel=1e-5)


def test_falls_when_views_agree() -> None:
    one, other = torch.randn(2, 8, 16)
    losses = [info_nce(one, one + noise * other, 0.2).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_with_all_others_as_a_queue_it_is_nt_xent() -> None:
    z, N = units(12, 8), 6
    losses = []
    for i in range(2 * N):
        own = (i + N) % (2 * N)
        others = torch.stack([row for k, row in enumerate(z) if k not in (i, own)])
        losses.append(info_nce(z[i : i + 1], z[own : own + 1], 0.3, others))
    torch.testing.assert_close(torch.stack(losses).mean(), nt_xent(z.view(2, N, 8), 0.3))


def test_an_empty_queue_teaches_nothing() -> None:
    q = torch.randn(4, 8, requires_grad=True)
    loss = info_nce(q, torch.randn(4, 8), 0.2, torch.zeros(0, 8))
    loss.backward()
    assert loss.item() == 0
    assert q.grad.abs().max() == 0
    assert torch.equal(nearest(q, torch.zeros(0, 8)), q)


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = torch.randn(2, 7, 8).requires_grad_().unbind()
    queue = units(9, 8)
    whole, near = info_nce(q, k, 0.2, queue), nearest(q, queue)
    goal = torch.autograd.grad(whole, [q, k])
    monkeypatch.setattr(infonce, "CHUNK", 20)
    pieces = info_nce(q, k, 0.2, queue)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, [q, k]), goal)
    assert torch.equal(nearest(q, queue), near)


def test_zero_embeddings_are_finite() -> None:
    for past in ((), (torch.zeros(2, 8),)):
        z = torch.zeros(4, 8, requires_grad=True)
        loss = info_nce(z, z.detach(), 0.2, *past)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(3 if past else 4), rel=1e-5)
        assert z.grad.isfinite().all()


def test_keeps_its_precision_under_autocast() -> None:
    q, k = torch.randn(2, 16, 32)
    past = units(9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = info_nce(q, k, 0.05), info_nce(q, k, 0.05, past)
        near = nearest(q, past)
    torch.testing.assert_close(losses, (info_nce(q, k, 0.05), info_nce(q, k, 0.05, past)), rtol=1e-5, atol=1e-5)
    assert torch.equal(near, nearest(q, past))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match=r"views\.global=2"):
        InfoNCE(ToyEncoder(), out=5)(passes({"plain": torch.randn(1, 4, 16)}))
    with pytest.raises(UserError, match=r"'infonce'.*batch-size"):
        InfoNCE(ToyEncoder(), out=5)(passes({"global": torch.randn(2, 1, 16)}))
    with pytest.raises(UserError, match="queue or neighbours to 0"):
        InfoNCE(ToyEncoder(), queue=4, neighbours=4)
