"""Transform prediction and SIE against loops; Gram anchoring against matrices entry by entry."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term
from unlabeled.terms.gram import Gram
from unlabeled.terms.sie import SIE
from unlabeled.terms.transform import PredictTransform

WHICH = torch.tensor([2, 0, 1, 1, 2, 0, 0, 1])


def turned(z: Tensor) -> Passes:
    """Passes over instances of views of four samples, each turned in its own way."""
    return replace(passes({"global": z}), transforms={"global": WHICH[: len(z) * 4]})


def test_rotation_equals_the_naive_loss_and_its_gradients() -> None:
    def naive(term: Term, x: list[Tensor]) -> Tensor:
        losses = []
        for row, k in zip(x[0].flatten(0, 1), WHICH.tolist(), strict=True):
            layer = zip(term.classifier.weight, term.classifier.bias, strict=True)
            p = torch.stack([(w @ row + b).exp() for w, b in layer])
            losses.append(-(p[k] / p.sum()).log())
        return torch.stack(losses).mean()

    compare(
        PredictTransform(ToyEncoder(), transforms=3),
        [torch.randn(2, 4, 16)],
        lambda term, x: term(turned(x[0]))["loss"],
        naive,
    )


def test_an_undecided_head_costs_the_logarithm_of_the_transforms() -> None:
    term = PredictTransform(ToyEncoder(), transforms=3)
    term.classifier.weight.data.zero_()
    term.classifier.bias.data.zero_()
    assert term(turned(torch.randn(1, 4, 16)))["loss"].item() == pytest.approx(math.log(3), rel=1e-6)


def variance(z: Tensor) -> Tensor:
    hinges = []
    for column in z.T:
        mean = sum(column) / len(column)
        hinges.append((1 - (sum((column - mean) ** 2) / (len(column) - 1) + 1e-4).sqrt()).clamp(min=0))
    return torch.stack(hinges).mean()


def covariance(z: Tensor) -> Tensor:
    centred = [column - sum(column) / len(column) for column in z.T]
    total = sum(
        (sum(a * b) / (len(a) - 1)) ** 2 for i, a in enumerate(centred) for j, b in enumerate(centred) if i != j
    )
    return total / len(centred)


def test_sie_equals_the_naive_loss_and_its_gradients() -> None:
    def turn(term: Term, z: Tensor, before: Tensor, after: Tensor) -> Tensor:
        rows = []
        for row, a, b in zip(z, before.tolist(), after.tolist(), strict=True):
            matrix = (term.matrices.weight[:, a] + term.matrices.weight[:, 3 + b]).view(3, 3)
            rows.append(sum(row[i] * matrix[i] for i in range(3)))
        return torch.stack(rows)

    def naive(term: Term, x: list[Tensor]) -> Tensor:
        one, two = x[0]
        same = [slow(term.invariant, view[:, :8]) for view in (one, two)]
        moved = [slow(term.equivariant, view[:, 8:]) for view in (one, two)]
        guesses = [turn(term, moved[0], WHICH[:4], WHICH[4:]), turn(term, moved[1], WHICH[4:], WHICH[:4])]
        far = ((guesses[0] - moved[1]) ** 2).mean() / 2 + ((guesses[1] - moved[0]) ** 2).mean() / 2
        both = [torch.cat(parts, 1) for parts in zip(same, moved, strict=True)]
        hinge = torch.stack([variance(z) for z in [*both, *guesses]]).mean()
        cov = torch.stack([covariance(z) for z in both]).mean()
        return 10 * ((same[0] - same[1]) ** 2).mean() + 4.5 * far + 10 * hinge + cov

    compare(
        SIE(ToyEncoder(), transforms=3, hidden=7, out=3),
        [torch.randn(2, 4, 16)],
        lambda term, x: term(turned(x[0]))["loss"],
        naive,
        rtol=1e-3,
    )


@pytest.mark.parametrize("term", [PredictTransform, SIE])
def test_without_known_transforms_they_are_refused(term: type[Term]) -> None:
    with pytest.raises(UserError, match="the view knows 0"):
        term(ToyEncoder())


# ---- Gram anchoring


def scene() -> tuple[Tokens, Tensor]:
    valid = torch.arange(5) < torch.tensor([5, 3])[:, None]
    coords = torch.linspace(0, 1, 5)[None, :, None].expand(2, 5, 1)
    tokens = Tokens(torch.randn(2, 5, 3) * valid[..., None], coords, valid, {})
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[0, 1] = True
    return tokens, hidden


def anchored(tokens: Tokens, latent: Tensor, hidden: Tensor) -> Passes:
    look = Look(1, tokens, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)))
    return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)


def test_gram_equals_the_naive_loss_and_rests_before_there_is_a_snapshot() -> None:
    tokens, hidden = scene()
    encoder = ToyEncoder()
    term = Gram(encoder, after=0.5)
    latent = torch.randn(2, 5, 16, requires_grad=True)
    assert term(anchored(tokens, latent, hidden))["loss"].item() == 0
    term.after_step(Clock(48, 100, 10))
    assert not bool(term.taken)
    term.after_step(Clock(49, 100, 10))
    assert bool(term.taken)
    anchor = encoder.eval()(tokens).tokens.detach()
    errors = []
    for b in range(2):
        seen = [n for n in range(5) if tokens.valid[b, n] and not hidden[b, n]]
        for i in seen:
            for j in seen:
                cosines = [
                    (z[b, i] @ z[b, j]) / ((z[b, i] @ z[b, i]).sqrt() * (z[b, j] @ z[b, j]).sqrt())
                    for z in (latent, anchor)
                ]
                errors.append((cosines[0] - cosines[1]) ** 2)
    goal = torch.stack(errors).mean()
    loss = term(anchored(tokens, latent, hidden))["loss"]
    torch.testing.assert_close(loss, goal, rtol=1e-4, atol=1e-6)
    grads = [torch.autograd.grad(value, latent)[0] for value in (loss, goal)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)
    assert term(anchored(tokens, anchor, hidden))["loss"].item() < 1e-10


def test_the_snapshot_stays_is_renewed_and_saved() -> None:
    encoder = ToyEncoder()
    term = Gram(encoder, after=0.5, refresh=0.2)
    moments = []
    for step in range(100):
        with torch.no_grad():
            encoder.enter.bias.add_(1)
        before = term.anchor.module.enter.bias.clone()
        term.after_step(Clock(step, 100, 10))
        if not torch.equal(before, term.anchor.module.enter.bias):
            moments.append(step)
    assert moments == [49, 69, 89]
    other = Gram(ToyEncoder())
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert torch.equal(other.anchor.module.enter.bias, term.anchor.module.enter.bias)
    assert bool(other.taken)
    assert not [name for name, weight in term.named_parameters() if weight.requires_grad]
