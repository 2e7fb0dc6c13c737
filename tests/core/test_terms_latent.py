"""I-JEPA's prediction of the teacher's tokens against loops over tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from test_terms_rebuild import alone, scene
from toy import CLOCK, ToyEncoder, compare
from unlabeled.branches import Branch, Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.terms.base import Term
from unlabeled.terms.latent import PredictLatent


def jepa(latent: Tensor, whole: Tensor, valid: Tensor, targets: tuple[Tensor, ...], branch: Branch = "ema") -> Passes:
    """Passes of one look of which the union of the targets is hidden, and the teacher's whole look."""
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1), valid, {})
    look = Look(1, tokens, Encoded(latent, latent.mean(1)), Hidden(torch.stack(targets).any(0), targets))
    return Passes(branch, {"plain": [look]}, {"plain": Look(1, tokens, Encoded(whole, whole.mean(1)))}, CLOCK)


def two_targets() -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Latent, valid and two overlapping, uneven target sets."""
    latent, _, valid, hidden = scene()
    one, two = hidden.clone(), hidden.clone()
    one[:, 2:4], two[:, 4:] = False, False
    two[0, 1] = False
    return latent, valid, (one, two)


@pytest.mark.parametrize("branch", ["ema", "shared"])
def test_equals_the_naive_loss_and_its_gradients(branch: Branch) -> None:
    latent, valid, targets = two_targets()
    whole = 3 * torch.randn_like(latent) + 1
    tokens = jepa(latent, whole, valid, targets).student["plain"][0].tokens
    seen = valid & ~torch.stack(targets).any(0)

    def naive(term: Term, inputs: list[Tensor]) -> Tensor:
        sets = []
        for target in targets:
            errors = []
            for b in range(len(latent)):
                predicted = alone(term.predictor, inputs[0], tokens, b, seen[b], target[b])
                for guess, truth in zip(predicted, inputs[1][b][target[b]], strict=True):
                    truth = truth if branch == "shared" else truth.detach()
                    truth = truth - truth.sum() / 16
                    truth = truth / ((truth**2).sum() / 16 + 1e-5).sqrt()
                    far = (guess - truth).abs()
                    errors.append(torch.where(far < 1, far**2 / 2, far - 0.5).sum() / 16)
            sets.append(torch.stack(errors).mean())
        return torch.stack(sets).mean()

    compare(
        PredictLatent(ToyEncoder(), width=32, depth=1),
        [latent, whole],
        lambda term, x: term(jepa(x[0], x[1], valid, targets, branch))["loss"],
        naive,
        rtol=1e-3,
    )


def test_the_predictor_of_one_target_never_sees_another() -> None:
    latent, valid, (one, two) = two_targets()
    whole = torch.randn_like(latent)
    seen = (one | two) & ~one
    term = PredictLatent(ToyEncoder(), depth=1)
    heard: list[tuple[Tensor, Tensor]] = []
    term.predictor.register_forward_pre_hook(lambda _, inputs: heard.append((inputs[2], inputs[3])))
    term(jepa(latent, whole, valid, (one, two)))
    assert [torch.equal(wanted, target) for (_, wanted), target in zip(heard, (one, two), strict=True)] == [True, True]
    assert not (heard[0][0] & seen).any(), "the places of the second target are no context of the first"
    moved = torch.where((one | two)[..., None], latent + 7, latent)  # latents of hidden places
    goals = [term(jepa(z, whole, valid, (one, two)))["loss"] for z in (latent, moved)]
    torch.testing.assert_close(goals[0], goals[1], rtol=0, atol=0)


def test_places_of_another_target_change_no_prediction() -> None:
    latent, valid, (one, two) = two_targets()
    only = two & ~one
    assert only.any()
    passes = jepa(latent, latent, valid, (one, two))
    look = passes.student["plain"][0]
    term = PredictLatent(ToyEncoder(), depth=1)
    before = term.predictor(latent, look.tokens, look.seen, one)
    coords = torch.where(only[..., None], 1 - look.tokens.coords, look.tokens.coords)
    moved = Tokens(look.tokens.values, coords, valid, {})
    torch.testing.assert_close(term.predictor(latent, moved, look.seen, one)[one], before[one], rtol=0, atol=0)


def test_falls_to_zero_when_the_prediction_is_right() -> None:
    latent, valid, targets = two_targets()
    term = PredictLatent(ToyEncoder(), depth=1)
    whole = torch.randn_like(latent)
    goal = torch.nn.functional.layer_norm(whole, (16,))
    losses = []
    for noise in (0.0, 0.5, 2.0):
        guess = goal + noise * torch.randn_like(goal)
        term.predictor.forward = lambda *_, guess=guess: guess
        losses.append(term(jepa(latent, whole, valid, targets))["loss"].item())
    assert losses[0] == 0
    assert losses == sorted(losses)


def normed(x: Tensor) -> Tensor:
    """A vector less its mean, over its deviation."""
    x = x - x.sum() / len(x)
    return x / ((x**2).sum() / len(x) + 1e-5).sqrt()


def blanked(latent: Tensor, instances: Tensor, layers: Tensor, valid: Tensor, hidden: Tensor) -> Passes:
    """A look with blanks in place, and a teacher's with layers [L, B, N, D]."""
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1), valid, {})
    look = Look(1, tokens, Encoded(latent, instances), Hidden(hidden, (hidden,)), True)
    return Passes("ema", {"plain": [look]}, {"plain": Look(1, tokens, Encoded(layers[-1], instances, layers))}, CLOCK)


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_layers_and_the_summary_equal_the_naive_loss(loss: str) -> None:
    latent, _, valid, hidden = scene()
    layers = torch.randn(2, *latent.shape)
    encoder = ToyEncoder()
    encoder.depth = 2
    term = PredictLatent(encoder, depth=0, loss=loss, layers=5, summary=0.5)
    assert term.layers == 2

    def naive(term: Term, inputs: list[Tensor]) -> Tensor:
        goal = [[normed((normed(layers[0, b, n]) + normed(layers[1, b, n])) / 2) for n in range(7)] for b in range(3)]
        errors, summaries = [], []
        for b, n in hidden.nonzero().tolist():
            guess, truth = term.predictor(inputs[0][b, n]), goal[b][n].double()
            if loss == "mse":
                errors.append(sum((guess - truth) ** 2) / 16)
            else:
                errors.append(2 - 2 * (guess @ truth) / ((guess @ guess) ** 0.5 * (truth @ truth) ** 0.5))
        for b in range(3):
            kept = [goal[b][n].double() for n in range(7) if valid[b, n]]
            guess = term.summariser.weight @ inputs[1][b] + term.summariser.bias
            summaries.append(sum((guess - sum(kept) / len(kept)) ** 2) / 16)
        return sum(errors) / len(errors) + 0.5 * sum(summaries) / 3

    compare(
        term,
        [latent, torch.randn(3, 16)],
        lambda term, x: term(blanked(x[0], x[1], layers, valid, hidden))["loss"],
        naive,
        rtol=1e-3,
    )


def test_an_encoder_with_fewer_layers_gives_what_it_has() -> None:
    encoder = ToyEncoder()
    encoder.depth = 0
    assert PredictLatent(encoder, layers=8).layers == 0


@pytest.mark.parametrize(
    ("options", "words"), [({"loss": "l7"}, "smooth_l1, mse, cosine"), ({"depth": 0}, "in_place=true")]
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    latent, valid, targets = two_targets()
    with pytest.raises(UserError, match=words):
        PredictLatent(ToyEncoder(), **options)(jepa(latent, latent, valid, targets))
