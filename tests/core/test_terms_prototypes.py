"""DINO's self-distillation against loops, closed forms, and the story of its centre."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow, unit
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.schedules import Clock
from unlabeled.sinkhorn import sinkhorn
from unlabeled.terms.base import Term
from unlabeled.terms.prototypes import IBOT, HiddenPrototypes, PrototypeHead, Prototypes, distillation


def make(prototypes: int = 6, **options: float) -> Prototypes:
    term = Prototypes(ToyEncoder(), prototypes=prototypes, hidden=7, bottleneck=5, **options)
    term.attach("ema")
    return term


def slow_logits(head: PrototypeHead, x: Tensor) -> Tensor:
    """Cosines of each embedding with each prototype, one by one."""
    rows = [[(unit(row) * unit(prototype)).sum() for prototype in head.prototypes] for row in slow(head.mlp, x)]
    return torch.stack([torch.stack(row) for row in rows])


def naive(student: list[Tensor], teacher: list[Tensor], centre: Tensor, cold: float, warm: float) -> Tensor:
    """−Σ p log q over samples and pairs of different views, from the definitions."""
    losses = []
    for j, theirs in enumerate(teacher):
        for i, mine in enumerate(student):
            for g, s in zip(theirs, mine, strict=True):
                if i != j:
                    p, q = ((g - centre) / cold).exp(), (s / warm).exp()
                    losses.append(-(p / p.sum() * (q / q.sum()).log()).sum())
    return torch.stack(losses).mean()


def test_equals_the_naive_loss_and_its_gradients() -> None:
    term = make()
    for weight in term.projector.parameters():  # the teacher's head is a copy that has stayed behind
        torch.nn.init.normal_(weight, std=0.5)
    term.centre.normal_(std=0.1)
    theirs = torch.randn(2, 4, 16)
    cold = 0.04 + 0.03 * CLOCK.step / (30 * CLOCK.epoch_steps)

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        goals = [slow_logits(term.teacher_heads["projector"].module, view).detach() for view in theirs.double()]
        return naive([slow_logits(term.projector, view) for view in x[0]], goals, term.centre, cold, 0.1)

    compare(
        term,
        [torch.randn(5, 4, 16)],
        lambda term, x: term(passes({"global": x[0][:2], "local": x[0][2:]}, "ema", {"global": theirs}))["loss"],
        expected,
        rtol=1e-3,
    )


def test_uniform_logits_give_the_logarithm_of_the_prototypes() -> None:
    even = torch.zeros(4, 9)
    loss = distillation([even, even], [even.softmax(-1)] * 2)
    assert loss.item() == pytest.approx(math.log(9), rel=1e-6)


def test_agreement_gives_the_teachers_entropy_and_less_agreement_more() -> None:
    logits = torch.randn(4, 9)
    p = logits.softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    torch.testing.assert_close(distillation([logits, logits], [p, p]), entropy)
    far = torch.randn(4, 9)
    losses = [distillation([logits + noise * far] * 2, [p, p]).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_a_view_is_not_compared_with_itself() -> None:
    sharp = 50 * torch.eye(4)
    a, b = sharp, sharp.roll(1, 0)
    assert distillation([a, b], [b.softmax(-1), a.softmax(-1)]).item() == pytest.approx(0, abs=1e-6)


def test_logits_are_cosines() -> None:
    head = PrototypeHead(8, 7, 5, 6)
    x = torch.randn(32, 8) * 100
    assert head(x).abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(17)
    torch.testing.assert_close(head(x).double(), slow_logits(head.double(), x.double()), rtol=1e-4, atol=1e-5)


def teach(term: Prototypes, whole: Tensor) -> Tensor:
    """One micro-batch; returns the mean of the teacher's logits."""
    term(passes({"global": torch.randn_like(whole)}, "ema", {"global": whole}))
    return torch.cat([term.teacher_heads["projector"](view) for view in whole]).mean(0)


def test_the_centre_starts_at_zero_and_moves_by_a_tenth_of_the_mean() -> None:
    term = make()
    assert term.centre.abs().max() == 0
    first = teach(term, torch.randn(2, 4, 16))
    assert term.centre.abs().max() == 0
    term.after_step(CLOCK)
    torch.testing.assert_close(term.centre, 0.1 * first)
    second = teach(term, torch.randn(2, 4, 16))
    term.after_step(CLOCK)
    torch.testing.assert_close(term.centre, 0.09 * first + 0.1 * second)


def test_the_centre_moves_once_a_step_by_the_average_of_its_micro_batches() -> None:
    term = make()
    means = [teach(term, torch.randn(2, 4, 16)) for _ in range(3)]
    term.after_step(CLOCK)
    torch.testing.assert_close(term.centre, 0.1 * torch.stack(means).mean(0))


def test_the_centre_rests_without_training() -> None:
    term = make()
    teach(term, torch.randn(2, 4, 16))
    term.after_step(CLOCK)
    before = term.centre.clone()
    term.eval()
    teach(term, torch.randn(2, 4, 16))
    term.after_step(CLOCK)  # a step in which nothing was learnt from
    torch.testing.assert_close(term.centre, before)


def test_a_batch_that_is_not_finite_does_not_spoil_the_centre() -> None:
    term = make()
    teach(term, torch.full((2, 4, 16), torch.nan))
    mean = teach(term, torch.randn(2, 4, 16))
    term.after_step(CLOCK)
    torch.testing.assert_close(term.centre, 0.1 * mean)


def test_the_teacher_warms_up_linearly() -> None:
    term = make()
    at = [term.temperature(Clock(step, 1000, 10)) for step in (0, 150, 300, 900)]
    assert at == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_prototypes_rest_in_the_first_epoch() -> None:
    term = make()
    for step, rests in ((0, True), (9, True), (10, False)):
        term.zero_grad()
        z = torch.randn(2, 4, 16)
        term(passes({"global": z}, "ema", {"global": z + 1}))["loss"].backward()
        term.after_backward(Clock(step, 1000, 10))
        assert (term.projector.prototypes.grad.abs().max() == 0) == rests
        assert term.projector.mlp[0].weight.grad.abs().max() > 0
    term.zero_grad()
    z = torch.randn(2, 4, 16)
    term(passes({"global": z}, "ema", {"global": z + 1}))["loss"].backward()
    term.after_backward(Clock(5, 50, 50))  # one long epoch: a tenth of it
    assert term.projector.prototypes.grad.abs().max() > 0


def test_zero_embeddings_and_one_sample_are_finite() -> None:
    for z in (torch.zeros(2, 4, 16), torch.randn(2, 1, 16)):
        term = make()
        z.requires_grad_()
        loss = term(passes({"global": z}, "ema", {"global": z.detach()}))["loss"]
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()
        assert all(weight.grad.isfinite().all() for weight in term.projector.parameters())


def test_usage_counts_prototypes() -> None:
    term = make()
    z = torch.randn(1, 1, 16).expand(2, 4, 16)
    out = term(passes({"global": z}, "ema", {"global": z}))
    assert 1 <= out["usage"].item() <= 6


def hidden_passes(latent: Tensor, whole: Tensor, hidden: Tensor, instances: Tensor) -> Passes:
    """Two global views with tokens hidden in place: latent, whole [2 × M, N, D], instances [2, M, D]."""
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.zeros(B, N, 1), torch.ones(B, N, dtype=torch.bool), {})
    look = Look(2, tokens, Encoded(latent, instances.flatten(0, 1)), Hidden(hidden, (hidden,)), True)
    teacher = Look(2, tokens, Encoded(whole, instances.detach().flatten(0, 1) + 1))
    return Passes("ema", {"global": [look]}, {"global": teacher}, CLOCK)


def naive_tokens(term: Term, latent: Tensor, whole: Tensor, hidden: Tensor, centre: Tensor, cold: float) -> Tensor:
    """The mean over hidden tokens of a sample, then over samples, with loops."""
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(latent)):
        places = hidden[b].nonzero().flatten().tolist()
        for n in places:
            g = slow_logits(term.teacher_heads["projector"].module, whole[b, n][None].double())[0].detach()
            s = slow_logits(term.projector, latent[b, n][None])[0]
            p, q = ((g - centre) / cold).exp(), (s / 0.1).exp()
            total = total - (p / p.sum() * (q / q.sum()).log()).sum() / len(places)
    return total / len(latent)


@pytest.mark.parametrize("shared", [False, True])
def test_hidden_tokens_equal_the_naive_loss(shared: bool) -> None:
    term = (IBOT if shared else HiddenPrototypes)(ToyEncoder(), prototypes=6, hidden=7, bottleneck=5)
    term.attach("ema")
    for weight in term.projector.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    centring = term.token_centring if shared else term.centring
    centring.value.normal_(std=0.1)
    hidden = torch.rand(6, 5) < 0.5
    hidden[0], hidden[1, 0] = False, True  # one sample without hidden tokens
    whole = torch.randn(6, 5, 16)
    cold = term.temperature(CLOCK)

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        centre = (term.token_centring if shared else term.centring).value
        loss = naive_tokens(term, x[0], whole, hidden, centre, cold)
        if shared:
            theirs = x[1].detach() + 1
            goals = [slow_logits(term.teacher_heads["projector"].module, view).detach() for view in theirs]
            logits = [slow_logits(term.projector, view) for view in x[1]]
            loss = loss + naive(logits, goals, term.centring.value, cold, 0.1)
        return loss

    compare(
        term,
        [torch.randn(6, 5, 16), torch.randn(2, 3, 16)],
        lambda term, x: term(hidden_passes(x[0], whole, hidden, x[1]))["loss"] + 0 * x[1].sum(),
        lambda term, x: expected(term, x) + 0 * x[1].sum(),
        rtol=1e-3,
    )
    before = centring.value.clone()
    heads = term.teacher_heads["projector"]
    term.zero_grad()
    term.after_step(CLOCK)  # what compare saw
    term(hidden_passes(torch.randn(6, 5, 16), whole, hidden, torch.randn(2, 3, 16)))
    moved = centring.value.clone()
    term.after_step(CLOCK)
    torch.testing.assert_close(centring.value, 0.9 * moved + 0.1 * heads(whole[hidden]).mean(0))
    assert not torch.equal(before, moved)


def test_nothing_hidden_at_all_leaves_loss_and_centre() -> None:
    term = HiddenPrototypes(ToyEncoder(), prototypes=6, hidden=7, bottleneck=5)
    term.attach("ema")
    latent = torch.randn(4, 5, 16, requires_grad=True)
    loss = term(hidden_passes(latent, torch.randn(4, 5, 16), torch.zeros(4, 5) > 0, torch.randn(2, 2, 16)))["loss"]
    loss.backward()
    term.after_step(CLOCK)
    assert loss.item() == 0
    assert term.centring.value.abs().max() == 0


def test_sinkhorn_in_place_of_the_centre() -> None:
    term = make(centring="sinkhorn")
    theirs = torch.randn(2, 4, 16)
    logits = term.teacher_heads["projector"](theirs.flatten(0, 1))
    goal = sinkhorn(logits, term.temperature(CLOCK)).chunk(2)
    student = torch.randn(2, 4, 16)
    expected = distillation([term.projector(view) / 0.1 for view in student], list(goal))
    torch.testing.assert_close(term(passes({"global": student}, "ema", {"global": theirs}))["loss"], expected)
    assert not [name for name in term.state_dict() if "centring" in name]
    with pytest.raises(UserError, match="mean or sinkhorn"):
        make(centring="median")


def test_dropped_tokens_are_refused() -> None:
    term = HiddenPrototypes(ToyEncoder(), prototypes=6, hidden=7, bottleneck=5)
    term.attach("ema")
    seen = hidden_passes(torch.randn(4, 5, 16), torch.randn(4, 5, 16), torch.ones(4, 5) > 0, torch.randn(2, 2, 16))
    look = replace(seen.student["global"][0], in_place=False)
    with pytest.raises(UserError, match="in_place=true"):
        term(replace(seen, student={"global": [look]}))
