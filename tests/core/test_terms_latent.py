"""Prediction of the teacher's tokens against loops over tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from test_terms_rebuild import alone, scene
from toy import CLOCK, ToyEncoder, compare, forward, keys, method, slow, views
from unlabeled.branches import Branch, Look, Passes, follow
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import ContextTargets, Hidden
from unlabeled.methods import METHODS
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.randomness import Draws, sample_keys
from unlabeled.terms import latent as latent_terms
from unlabeled.terms.base import Term
from unlabeled.terms.latent import PredictLatent, RegressTokens, goal_of, instance_norm, token_error


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


def over_tokens(layer: Tensor, valid: Tensor) -> list[list[Tensor]]:
    """Each sample's valid tokens [D], every channel normed over them; zeros at the others."""
    out = []
    for tokens, keep in zip(layer.double(), valid, strict=True):
        columns = [normed(tokens[keep, d]) for d in range(layer.shape[-1])]
        rows = iter(torch.stack(columns, -1))
        out.append([next(rows) if kept else torch.zeros(layer.shape[-1], dtype=torch.float64) for kept in keep])
    return out


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "cosine"])
def test_layers_and_the_summary_equal_the_naive_loss(loss: str) -> None:
    latent, _, valid, hidden = scene()
    layers = torch.randn(2, *latent.shape) + torch.randn(16)
    encoder = ToyEncoder()
    encoder.depth = 2
    term = PredictLatent(encoder, depth=0, loss=loss, beta=0.7, layers=5, summary=0.5)
    assert term.layers == 2
    one, two = (over_tokens(layer, valid) for layer in layers)

    def naive(term: Term, inputs: list[Tensor]) -> Tensor:
        goal = [[normed((one[b][n] + two[b][n]) / 2) for n in range(7)] for b in range(3)]
        errors, summaries = [], []
        for b, n in hidden.nonzero().tolist():
            guess, truth = slow(term.predictor, inputs[0][b, n][None])[0], goal[b][n]
            far = (guess - truth).abs()
            if loss == "mse":
                errors.append(sum(far**2) / 16)
            elif loss == "smooth_l1":
                errors.append(sum(torch.where(far < 0.7, far**2 / 1.4, far - 0.35)) / 16)
            else:
                errors.append(2 - 2 * (guess @ truth) / ((guess @ guess) ** 0.5 * (truth @ truth) ** 0.5))
        for b in range(3):
            kept = [goal[b][n] for n in range(7) if valid[b, n]]
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


def flat(x: Tensor, valid: Tensor) -> Tensor:
    """Valid tokens of all samples one after another, in one row."""
    return x[valid][None]


def test_flat_storage_gives_what_padding_gives() -> None:
    latent, _, valid, hidden = scene()
    layers, instances = torch.randn(2, *latent.shape) + 3, torch.randn(3, 16)
    encoder = ToyEncoder()
    encoder.depth = 2
    term = PredictLatent(encoder, depth=0, loss="mse", layers=2, summary=1.0)
    padded = blanked(latent, instances, layers, valid, hidden)
    row = blanked(
        flat(latent, valid),
        instances,
        torch.stack([flat(layer, valid) for layer in layers]),
        flat(valid, valid),
        flat(hidden, valid),
    )
    owner = flat(torch.arange(3)[:, None].expand(3, 7), valid)
    looks = [
        replace(look, tokens=replace(look.tokens, owner=owner))
        for look in (row.student["plain"][0], row.teacher["plain"])
    ]
    row = replace(row, student={"plain": [looks[0]]}, teacher={"plain": looks[1]})
    goals = [goal_of(made.teacher["plain"], 2) for made in (padded, row)]
    torch.testing.assert_close(goals[1], flat(goals[0], valid))
    for part, value in term(padded).items():
        torch.testing.assert_close(term(row)[part], value, msg=part)


def test_what_all_tokens_of_a_sample_share_is_no_target() -> None:
    latent, _, valid, _ = scene()
    tokens = blanked(latent, latent[:, 0], latent[None], valid, valid).teacher["plain"].tokens
    x = torch.randn(3, 7, 16)
    moved = 5 * x + torch.randn(3, 1, 16)
    torch.testing.assert_close(
        instance_norm(moved, tokens)[valid], instance_norm(x, tokens)[valid], rtol=1e-3, atol=1e-4
    )
    alike = instance_norm(torch.randn(3, 1, 16).expand(3, 7, 16), tokens)
    assert alike[valid].abs().max() < 1e-3
    single = replace(tokens, valid=torch.arange(7).expand(3, 7) < 1)
    assert instance_norm(x, single)[:, 0].abs().max() < 1e-3


def test_an_encoder_with_fewer_layers_gives_what_it_has() -> None:
    encoder = ToyEncoder()
    encoder.depth = 0
    assert PredictLatent(encoder, layers=8).layers == 0


def test_smooth_l1_is_the_squared_error_for_a_wide_beta() -> None:
    guess, goal = torch.randn(2, 5, 8)
    square = token_error(guess, goal, "mse")
    torch.testing.assert_close(token_error(guess, goal, "smooth_l1", beta=100.0), square / 200)
    torch.testing.assert_close(token_error(guess, 3 * guess, "cosine"), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(token_error(guess, -guess, "cosine"), torch.full((5,), 4.0))


def test_masks_share_a_teachers_look_and_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    row = method("data2vec", block__masks=3)
    made = Objective(ToyEncoder(), row, core()).train()
    batches = views(row)
    made_goals = []
    monkeypatch.setattr(latent_terms, "goal_of", lambda *args: made_goals.append(goal_of(*args)) or made_goals[-1])
    calls = made.encoder.calls, made.teacher.module.calls
    loss = forward(made, batches)["loss"]
    assert (made.encoder.calls - calls[0], made.teacher.module.calls - calls[1], len(made_goals)) == (3, 1, 1)
    passes = made.look(batches, keys(batches), CLOCK)
    hidden = [look.hidden.hidden for look in passes.student["plain"]]
    assert not torch.equal(hidden[0], hidden[1])
    term = made.terms["latent"]
    each = [term(replace(passes, student={"plain": [look]}))["loss"] for look in passes.student["plain"]]
    torch.testing.assert_close(loss, torch.stack(each).mean())


@given(st.integers(2, 20))
def test_tjepas_mask_reaches_every_place_as_context_and_as_target(places: int) -> None:
    made = METHODS["tjepa"].hide
    assert made is not None
    rows = 400
    coords = torch.linspace(0, 1, places)[None, :, None].expand(rows, places, 1)
    tokens = Tokens(torch.zeros(rows, places, 1), coords, torch.ones(rows, places, dtype=torch.bool), {})
    out = ContextTargets(**made.options)(tokens, Draws(sample_keys(0, 0, torch.arange(rows))))
    assert len(out.targets) == 4
    assert (~out.hidden).any(0).all()
    assert torch.stack(out.targets).any(0).any(0).all()
    assert not any((target & ~out.hidden).any() for target in out.targets)


# ---- ATST-Frame


def regress(branch: Branch = "ema") -> RegressTokens:
    term = RegressTokens(ToyEncoder(), hidden=12, out=6)
    term.attach(branch)
    return term


@pytest.mark.parametrize("branch", ["ema", "stop_gradient", "shared"])
def test_regress_tokens_equals_the_naive_loss(branch: Branch) -> None:
    latent, _, valid, hidden = scene()
    whole = torch.randn(3, 7, 16)
    term = regress(branch)
    if branch == "ema":
        (pair,) = term.pairs()
        with torch.no_grad():
            for weight in pair[0].module.parameters():
                weight.add_(0.3 * torch.randn_like(weight))

    def naive(term: RegressTokens, inputs: list[Tensor]) -> Tensor:
        head = term.teacher_heads["projector"].module if branch == "ema" else term.projector
        z = slow(term.predictor, slow(term.projector, inputs[0][hidden]))
        goal = slow(head, inputs[1][hidden])
        goal = goal if branch == "shared" else goal.detach()
        cosines = [(a @ b) / ((a @ a) * (b @ b)) ** 0.5 for a, b in zip(z, goal, strict=True)]
        return sum(2 - 2 * cosine for cosine in cosines) / len(cosines)

    def loss(term: RegressTokens, inputs: list[Tensor]) -> Tensor:
        made = blanked(inputs[0], inputs[0].mean(1), inputs[1][None], valid, hidden)
        return term(replace(made, branch=branch))["loss"]

    compare(term, [latent, whole], loss, naive)


def test_the_teachers_projector_follows_and_the_predictor_has_none() -> None:
    term = regress()
    assert list(term.teacher_heads) == ["projector"]
    before = term.teacher_heads["projector"].module[0].weight.clone()
    with torch.no_grad():
        term.projector[0].weight.add_(1)
    follow(term.pairs(), 0.75)
    torch.testing.assert_close(term.teacher_heads["projector"].module[0].weight, before + 0.25)


def test_regress_tokens_sees_hidden_tokens_only() -> None:
    latent, _, valid, hidden = scene()
    whole = torch.randn(3, 7, 16)
    term = regress()
    seen = ~hidden[..., None]
    before = term(blanked(latent, latent[:, 0], whole[None], valid, hidden))["loss"]
    moved = blanked(latent + 7 * seen, latent[:, 0], (whole + 7 * seen)[None], valid, hidden)
    torch.testing.assert_close(term(moved)["loss"], before, rtol=0, atol=0)


def test_regress_tokens_refuses_one_token_and_dropped_ones() -> None:
    latent, _, valid, hidden = scene()
    term = regress()
    one = hidden & (torch.arange(21).view(3, 7) == hidden.flatten().nonzero()[0])
    with pytest.raises(UserError, match="got only one"):
        term(blanked(latent, latent[:, 0], latent[None], valid, one))
    with pytest.raises(UserError, match="in_place=true"):
        term(jepa(latent, latent, valid, (hidden,)))


@pytest.mark.parametrize(
    ("options", "words"), [({"loss": "l7"}, "smooth_l1, mse, cosine"), ({"depth": 0}, "in_place=true")]
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    latent, valid, targets = two_targets()
    with pytest.raises(UserError, match=words):
        PredictLatent(ToyEncoder(), **options)(jepa(latent, latent, valid, targets))


def test_a_summary_of_parts_is_refused() -> None:
    latent, _, valid, hidden = scene()
    term = PredictLatent(ToyEncoder(), depth=0, summary=1.0)
    with pytest.raises(UserError, match="set it to 0"):
        term(blanked(latent, torch.randn(21, 16), latent[None], valid, hidden))


def test_equal_and_zero_tokens_are_finite() -> None:
    latent, _, valid, hidden = scene()
    for x in (torch.zeros_like(latent), torch.ones_like(latent)):
        x.requires_grad_()
        made = blanked(x, x.mean(1), torch.stack([x, x]).detach(), valid, hidden)
        encoder = ToyEncoder()
        encoder.depth = 2
        terms: list[Term] = [regress()]
        terms += [PredictLatent(encoder, depth=0, loss=loss, layers=2, summary=1.0) for loss in ("mse", "cosine")]
        for term in terms:
            loss = term(made)["loss"]
            loss.backward()
            assert loss.isfinite()
            assert all(weight.grad.isfinite().all() for weight in term.parameters() if weight.grad is not None)
