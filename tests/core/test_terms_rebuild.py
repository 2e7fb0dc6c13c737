"""Rebuilding hidden content against loops over tokens, and what the decoder may not know."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.terms.base import Term
from unlabeled.terms.rebuild import Rebuild, scaled_cosine


def masked(latent: Tensor, values: Tensor, valid: Tensor, hidden: Tensor, targets: tuple[Tensor, ...] = ()) -> Passes:
    """Passes of one look with something hidden."""
    B, N, _ = values.shape
    tokens = Tokens(values, torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1), valid, {})
    look = Look(1, tokens, Encoded(latent, latent.mean(1)), Hidden(hidden, targets or (hidden,)))
    return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)


def scene(B: int = 3, N: int = 7, V: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latent, values, valid, hidden of uneven samples with uneven numbers of hidden tokens."""
    valid = torch.arange(N) < torch.tensor([N, N - 2, 4])[:, None]
    hidden = (torch.rand(B, N) < 0.5) & valid
    hidden[:, 0], hidden[:, 1] = False, True
    return torch.randn(B, N, 16), torch.randn(B, N, V) * valid[..., None], valid, hidden


def alone(predictor: torch.nn.Module, latent: Tensor, tokens: Tokens, b: int, seen: Tensor, wanted: Tensor) -> Tensor:
    """The prediction of one sample's wanted tokens, by a pass over just its seen and wanted tokens."""
    at = (seen | wanted).nonzero().flatten()
    one = Tokens(tokens.values[b : b + 1, at], tokens.coords[b : b + 1, at].to(latent.dtype), at[None] >= 0, {})
    return predictor(latent[b : b + 1, at], one, seen[None, at], wanted[None, at])[0][wanted[at]]


@pytest.mark.parametrize("standardise", [False, True])
def test_equals_the_naive_loss_and_its_gradients(standardise: bool) -> None:
    latent, values, valid, hidden = scene()
    tokens = masked(latent, values, valid, hidden).student["plain"][0].tokens

    def naive(term: Term, inputs: list[Tensor]) -> Tensor:
        errors = []
        for b in range(len(values)):
            predicted = alone(term.decoder, inputs[0], tokens, b, valid[b] & ~hidden[b], hidden[b])
            for guess, truth in zip(predicted, values[b][hidden[b]].double(), strict=True):
                if standardise:
                    mean = truth.sum() / 3
                    truth = (truth - mean) / (((truth - mean) ** 2).sum() / 2 + 1e-6).sqrt()
                errors.append(((guess - truth) ** 2).sum() / 3)
        return torch.stack(errors).mean()

    compare(
        Rebuild(ToyEncoder(), width=32, depth=1, standardise=standardise),
        [latent],
        lambda term, x: term(masked(x[0], values, valid, hidden))["loss"],
        naive,
        rtol=1e-3,
    )


def test_only_hidden_tokens_count() -> None:
    latent, values, valid, hidden = scene()
    term = Rebuild(ToyEncoder(), depth=1)
    before = term(masked(latent, values, valid, hidden))["loss"]
    seen = valid & ~hidden
    after = term(masked(latent, torch.where(seen[..., None], values + 7, values), valid, hidden))["loss"]
    torch.testing.assert_close(after, before)
    moved = term(masked(latent, torch.where(hidden[..., None], values + 7, values), valid, hidden))["loss"]
    assert moved > before + 1


def test_the_decoder_knows_neither_latents_nor_values_of_hidden_and_invalid_places() -> None:
    latent, values, valid, hidden = scene()
    term = Rebuild(ToyEncoder(), depth=1)
    look = masked(latent, values, valid, hidden).student["plain"][0]
    before = term.decoder(latent, look.tokens, look.seen, hidden)
    closed = (hidden | ~valid)[..., None]
    other = replace(look.tokens, values=torch.where(closed, values + 7, values))
    after = term.decoder(torch.where(closed, latent + 7, latent), other, look.seen, hidden)
    torch.testing.assert_close(after[hidden], before[hidden], rtol=0, atol=0)


def test_the_decoder_knows_where_a_token_is() -> None:
    latent, values, valid, hidden = scene()
    term = Rebuild(ToyEncoder(), depth=1)
    look = masked(latent, values, valid, hidden).student["plain"][0]
    out = term.decoder(latent, look.tokens, look.seen, hidden)
    moved = term.decoder(latent, replace(look.tokens, coords=1 - look.tokens.coords), look.seen, hidden)
    assert (out - moved)[hidden].abs().max() > 1e-4


def test_an_encoder_with_its_own_content_is_asked() -> None:
    class Ones:
        width = 2

        def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:
            assert prediction.shape[-1] == 2
            return tokens.values[..., 0] * 0 + 5 + 0 * prediction.sum(-1)

    encoder = ToyEncoder()
    encoder.content = Ones()
    assert Rebuild(encoder, depth=1)(masked(*scene()))["loss"].item() == 5


def test_tokens_of_one_value_are_rebuilt_as_they_are() -> None:
    latent, _, valid, hidden = scene()
    values = torch.randn(3, 7, 1)
    plain = Rebuild(ToyEncoder(values=1), depth=1)
    asked = Rebuild(ToyEncoder(values=1), depth=1, standardise=True)
    asked.load_state_dict(copy.deepcopy(plain.state_dict()))
    inputs = (latent, values, valid, hidden)
    torch.testing.assert_close(asked(masked(*inputs))["loss"], plain(masked(*inputs))["loss"])


def test_nothing_hidden_costs_nothing() -> None:
    latent, values, valid, hidden = scene()
    loss = Rebuild(ToyEncoder(), depth=1)(masked(latent, values, valid, hidden & False))["loss"]
    loss.backward()
    assert loss.item() == 0


def in_place(latent: Tensor, values: Tensor, valid: Tensor, hidden: Tensor) -> Passes:
    """The same, with hidden tokens as blanks in the encoder."""
    seen = masked(latent, values, valid, hidden)
    look = replace(seen.student["plain"][0], in_place=True)
    return replace(seen, student={"plain": [look]}, teacher={"plain": look})


def slow_cosine(a: Tensor, b: Tensor) -> Tensor:
    return sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)


@pytest.mark.parametrize("kind", ["l1", "mse", "scaled_cosine"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_linear_head_equals_the_naive_loss(kind: str, everywhere: bool) -> None:
    latent, values, valid, hidden = scene()

    def naive(term: Term, inputs: list[Tensor]) -> Tensor:
        errors = []
        for b, n in (valid if everywhere else hidden).nonzero().tolist():
            guess = torch.stack([(row * inputs[0][b, n]).sum() for row in term.decoder.weight]) + term.decoder.bias
            truth = values[b, n].double()
            if kind == "scaled_cosine":
                errors.append((1 - slow_cosine(guess, truth)) ** 2)
            else:
                errors.append(sum((guess - truth).abs() if kind == "l1" else (guess - truth) ** 2) / 3)
        return torch.stack(errors).mean()

    compare(
        Rebuild(ToyEncoder(), depth=0, loss=kind, gamma=2.0, everywhere=everywhere),
        [latent],
        lambda term, x: term(in_place(x[0], values, valid, hidden))["loss"],
        naive,
    )


def test_the_scaled_cosine_ignores_lengths_and_stands_zeros() -> None:
    a, b = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(scaled_cosine(3 * a, 0.1 * b, 3.0), scaled_cosine(a, b, 3.0))
    assert scaled_cosine(a, a, 3.0).abs().max() < 1e-6
    torch.testing.assert_close(scaled_cosine(a, -a, 3.0), torch.full((3, 4), 8.0))
    zero = torch.zeros(3, 4, 8, requires_grad=True)
    scaled_cosine(zero, torch.zeros(3, 4, 8), 1.0).sum().backward()
    assert zero.grad.isfinite().all()


def test_a_target_is_predicted_in_place_of_the_content() -> None:
    class Twice:
        width = 2

        def __call__(self, tokens: Tokens) -> Tensor:
            return 2 * tokens.values[..., :2]

    latent, values, valid, hidden = scene()
    term = Rebuild(ToyEncoder(), depth=0, target=Twice())
    term.decoder.weight.data.zero_()
    term.decoder.bias.data.zero_()
    loss = term(in_place(latent, values, valid, hidden))["loss"]
    torch.testing.assert_close(loss, (2 * values[hidden][:, :2]).square().mean())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"loss": "huber"}, "mse, l1, scaled_cosine"), ({"gamma": 0.5}, "1 or more")],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Rebuild(ToyEncoder(), **options)


def test_a_linear_head_on_dropped_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="in_place=true"):
        Rebuild(ToyEncoder(), depth=0)(masked(*scene()))
