"""Rebuilding hidden content against loops over tokens, and what the decoder may not know."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, keys, method
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.objective import Objective
from unlabeled.plugins import core
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


def test_a_scaled_cosine_of_single_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="set it to mse"):
        Rebuild(ToyEncoder(values=1), loss="scaled_cosine")


def swapped(part: float) -> tuple[Passes, Tensor]:
    """Passes whose hidden tokens show, for a part of them, other content; and where that is."""
    latent, values, valid, hidden = scene()
    shows = hidden & (torch.rand(hidden.shape) < part)
    passes = masked(latent, values, valid, hidden & ~shows, (hidden,))
    look = passes.student["plain"][0]
    source = torch.where(shows, 0, torch.arange(hidden.numel()).view_as(hidden))
    look = replace(look, hidden=replace(look.hidden, source=source))
    return replace(passes, student={"plain": [look]}), shows


def test_a_linear_head_reads_changed_tokens_but_no_dropped_ones() -> None:
    term = Rebuild(ToyEncoder(), depth=0)
    assert term(swapped(1.0)[0])["loss"] > 0
    with pytest.raises(UserError, match="in_place=true"):
        term(swapped(0.5)[0])


def test_what_the_encoder_made_of_changed_tokens_is_hidden_again() -> None:
    passes, shows = swapped(0.5)
    assert shows.any()
    look = passes.student["plain"][0]
    term = Rebuild(ToyEncoder(), depth=1, loss="scaled_cosine")

    def moved(at: Tensor) -> Tensor:
        latent = look.latent + 7 * torch.randn(16) * at[..., None]
        other = replace(look, encoded=Encoded(latent, look.encoded.instances))
        return term(replace(passes, student={"plain": [other]}))["loss"]

    before = term(passes)["loss"]
    torch.testing.assert_close(moved(shows), before, rtol=0, atol=0)
    assert (moved(look.seen & ~shows) - before).abs() > 1e-4


def test_a_domains_own_content_goes_before_the_loss() -> None:
    class Own:
        width = 1

        def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:
            return prediction[..., 0] * 0 + 2

    encoder = ToyEncoder()
    encoder.content = Own()
    for loss in ("l1", "scaled_cosine"):
        assert Rebuild(encoder, loss=loss)(masked(*scene()))["loss"].item() == 2


@pytest.mark.parametrize("name", ["simmim", "gmml", "maskfeat", "graphmae"])
def test_rows_show_nothing_of_a_place_where_they_predict_it(name: str) -> None:
    row = method(name)
    made = Objective(ToyEncoder(), row, core()).eval()
    batches = {"plain": {"x": torch.randn(64, 24, 3)}}
    look = made.look(batches, keys(batches), CLOCK).student["plain"][0]
    (wanted,) = look.hidden.targets
    assert 0 < wanted.sum() < wanted.numel()
    shown = torch.zeros_like(wanted)  # content of a predicted place that stands elsewhere
    if look.hidden.source is not None:
        own = torch.arange(wanted.numel()).view_as(wanted)
        assert (look.hidden.hidden | (look.hidden.source != own))[wanted].all()
        shown = (look.hidden.source != own) & wanted.flatten()[look.hidden.source]
    clean = ~shown.any(1)
    assert clean.any()
    wrong = {"plain": {"x": batches["plain"]["x"] + 7 * wanted[..., None]}}
    again = made.look(wrong, keys(batches), CLOCK).student["plain"][0]
    torch.testing.assert_close(again.latent[clean], look.latent[clean], rtol=0, atol=0)
