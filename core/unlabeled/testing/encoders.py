"""check_encoder: the promises E1 … E20."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from unlabeled.contract import Batch, Encoded, Encoder, Tokens
from unlabeled.masking import per_sample
from unlabeled.testing import heads, leaks
from unlabeled.testing.promises import apart, attempt, chance, expect, kept, rows, unequal


def check_encoder(
    encoder: Encoder,
    batch: Batch,
    *,
    again: Callable[[], Encoder] | None = None,
    alone: Sequence[Batch] | None = None,
    name: str = "",
) -> None:
    """Run the promises E1 … E20 of docs/plugins.md on a copy of an encoder.

    Args:
        encoder: as its factory makes it.
        batch: two samples or more, as they come out of a view of the kind "whole".
        again: makes the encoder once more, for what its seed and its state_dict must hold (E18, E19).
        alone: every sample of the batch in a batch of its own (E12); not needed where every tensor of the batch has
            a row a sample. Where rows are shared and `alone` is not given, E12 is not checked.
        name: what to call the encoder in messages.

    Raises:
        BrokenPromise: the first promise that is not kept.
    """
    who = name or f"encoder {type(encoder).__name__}"
    encoder = copy.deepcopy(encoder).eval()
    with chance(0), torch.no_grad():
        tokens = check_tokens(encoder, batch, who)
        _weightless(encoder, batch, tokens, who)
        whole = _repeatable(encoder, tokens, who)
        leaks.check_invalid(encoder, tokens, whole, who)
        leaks.check_hidden(encoder, tokens, who)
        leaks.check_context(encoder, batch, tokens, who)
        leaks.check_seen(encoder, tokens, whole, who)
        _alone(encoder, batch, alone, tokens, whole, who)
        _layers(encoder, tokens, whole, who)
        leaks.check_mixing(encoder, tokens, whole, who)
    with chance(0):
        if encoder.has_tokens:
            heads.check_content(encoder, tokens, who)
            heads.check_predictor(encoder, tokens, who)
        heads.check_autocast(encoder, tokens, who)
        heads.check_gradient(encoder, tokens, who)
        _state(encoder, tokens, again, who)


def check_tokens(encoder: Encoder, batch: Batch, who: str, note: str = "") -> Tokens:
    """E1, E2, E3 and the half of E5 that is about tokenize. `note` says which batch it was."""
    expect(isinstance(encoder, Encoder), "E1", who, "it is no subclass of unlabeled.contract.Encoder")
    for width in ("value_width", "coord_width", "width"):
        value = getattr(encoder, width, None)
        expect(isinstance(value, int) and value > 0, "E1", who, f"{width} is {value!r}, not a whole number above 0")
    before = kept(batch)
    tokens = attempt(partial(encoder.tokenize, batch), "E1", who, f"tokenize{note}")
    changed = unequal(before, batch)
    expect(not changed, "E5", who, f"tokenize{note} changed its batch: {changed}")
    _shapes(encoder, tokens, who, note)
    valid, values = tokens.valid, tokens.values
    expect(values.isfinite().all(), "E2", who, f"tokenize{note}: values has entries that are not finite")
    expect(tokens.coords.isfinite().all(), "E2", who, f"tokenize{note}: coords has entries that are not finite")
    low, high = float(tokens.coords.min()), float(tokens.coords.max())
    expect(low >= 0 and high <= 1, "E2", who, f"tokenize{note}: coords reach from {low:g} to {high:g}")
    expect(not values[~valid].any(), "E2", who, f"tokenize{note}: values are not zero at places that are not valid")
    _, count = per_sample(tokens)
    expect((count > 0).all(), "E3", who, f"tokenize{note}: sample {int(count.argmin())} has no valid token")
    return tokens


def _shapes(encoder: Encoder, tokens: Tokens, who: str, note: str) -> None:
    expect(isinstance(tokens, Tokens), "E1", who, f"tokenize{note} returns {type(tokens).__name__}, not Tokens")
    expect(tokens.valid.dtype == torch.bool, "E3", who, f"tokenize{note}: valid is {tokens.valid.dtype}, not bool")
    expect(tokens.valid.dim() == 2, "E1", who, f"tokenize{note}: valid is {tuple(tokens.valid.shape)}, not [B, N]")
    B, N = tokens.valid.shape
    wanted = {
        "values": (tokens.values, (B, N, encoder.value_width)),
        "coords": (tokens.coords, (B, N, encoder.coord_width)),
        "owner": (tokens.owner, (B, N)),
        "where": (tokens.where, (B, N, encoder.coord_width)),
    }
    for field, (value, shape) in wanted.items():
        if value is not None:
            got = tuple(value.shape)
            expect(got == shape, "E1", who, f"tokenize{note}: {field} is {got}, and the encoder's widths say {shape}")
    for field in ("values", "coords"):
        kind = getattr(tokens, field).dtype
        expect(kind.is_floating_point, "E1", who, f"tokenize{note}: {field} is {kind}, not floating point")
    if tokens.owner is not None:
        expect(tokens.owner.dtype == torch.int64, "E1", who, f"tokenize{note}: owner is {tokens.owner.dtype}")


def difference(a: Tokens, b: Tokens) -> str:
    """The first difference of two Tokens in words, or nothing."""
    for field in fields(Tokens):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "context":
            words = unequal(one, other)
        elif one is None or other is None:
            words = "" if one is other else "is there only once"
        else:
            words = apart(one, other)
        if words:
            return f"{field.name}: {words}"
    return ""


def _weightless(encoder: Encoder, batch: Batch, tokens: Tokens, who: str) -> None:
    """E4, and tokenize's half of E6: other weights, the same tokens."""
    twice = difference(tokens, encoder.tokenize(batch))
    expect(not twice, "E6", who, f"tokenize gives two different cuts of one batch: {twice}")
    other = copy.deepcopy(encoder)
    for weight in other.parameters():
        weight.copy_(torch.randn_like(weight))
    changed = difference(tokens, other.tokenize(batch))
    expect(not changed, "E4", who, f"other weights give other tokens: {changed}")
    with torch.enable_grad():
        cut = other.tokenize(batch)
    for field in ("values", "coords"):
        expect(not getattr(cut, field).requires_grad, "E4", who, f"{field} requires a gradient")


def encode(encoder: Encoder, tokens: Tokens, hidden: Tensor | None, code: str, who: str, what: str) -> Encoded:
    """Forward, or the promise is broken by an error."""
    out: Encoded = attempt(partial(encoder, tokens, hidden), code, who, f"forward {what}")
    return out


def _repeatable(encoder: Encoder, tokens: Tokens, who: str) -> Encoded:
    """E7, E6 and forward's half of E5."""
    before = copy.deepcopy(tokens)
    state = kept(encoder.state_dict())
    with chance(1):
        whole = encode(encoder, tokens, None, "E7", who, "with nothing hidden")
    with chance(2):
        twice = encode(encoder, tokens, None, "E7", who, "with nothing hidden")
    changed = difference(before, tokens)
    expect(not changed, "E5", who, f"forward changed its tokens: {changed}")
    _outputs(encoder, tokens, whole, who)
    moved = leaks.moved(whole, twice, tokens.valid, exact=True)
    expect(not moved, "E6", who, f"a second pass in eval differs: {moved}")
    moved = unequal(state, encoder.state_dict())
    expect(not moved, "E6", who, f"a pass in eval changed the state: {moved}")
    none = encode(encoder, tokens, torch.zeros_like(tokens.valid), "E7", who, "with an empty mask")
    moved = leaks.moved(whole, none, tokens.valid)
    expect(not moved, "E7", who, f"an empty mask and no mask differ: {moved}")
    return whole


def _outputs(encoder: Encoder, tokens: Tokens, out: Encoded, who: str) -> None:
    """E7: shapes and finiteness."""
    B, N = tokens.valid.shape
    if encoder.has_tokens:
        expect(out.tokens is not None, "E7", who, "has_tokens is True and Encoded.tokens is None")
        assert out.tokens is not None
        got, wanted = tuple(out.tokens.shape), (B, N, encoder.width)
        expect(got == wanted, "E7", who, f"tokens is {got}, not {wanted}")
        expect(out.tokens[tokens.valid].isfinite().all(), "E7", who, "tokens at valid places are not finite")
    samples = len(per_sample(tokens)[1])
    got = tuple(out.instances.shape)
    fits = len(got) == 2 and got[1] == encoder.width and got[0] in (samples, int(tokens.valid.sum()), B * N)
    expect(fits, "E7", who, f"instances is {got}, not [{samples} samples (or one per node), {encoder.width}]")
    expect(out.instances.isfinite().all(), "E7", who, "instances are not finite")


def _alone(
    encoder: Encoder, batch: Batch, alone: Sequence[Batch] | None, tokens: Tokens, whole: Encoded, who: str
) -> None:
    """E12, with room for another order of floating-point sums."""
    samples = len(per_sample(tokens)[1])
    if alone is None:
        if tokens.owner is not None or not all(rows(value, samples) for value in batch.values()):
            return
        alone = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(samples)]
    owner, _ = per_sample(tokens)
    for sample, one in enumerate(alone):
        single = attempt(partial(encoder.tokenize, one), "E12", who, f"tokenize of sample {sample} alone")
        out = encode(encoder, single, None, "E12", who, f"of sample {sample} alone")
        if len(whole.instances) == samples:
            words = apart(whole.instances[sample], out.instances[0], close=True)
            expect(not words, "E12", who, f"sample {sample} has another instance alone: {words}")
        if whole.tokens is not None and out.tokens is not None and encoder.has_tokens:
            mine = tokens.valid & (owner == sample)
            words = apart(whole.tokens[mine], out.tokens[single.valid], close=True)
            expect(not words, "E12", who, f"sample {sample} has other tokens alone: {words}")


def _layers(encoder: Encoder, tokens: Tokens, whole: Encoded, who: str) -> None:
    """E13: shapes, order, and that asking changes nothing; leaks.check_hidden looks at what layers carry."""
    depth = encoder.depth
    expect(isinstance(depth, int) and depth >= 0, "E13", who, f"depth is {depth!r}, not a whole number from 0")
    if not depth:
        return
    full = attempt(partial(encoder, tokens, None, depth), "E13", who, f"forward with layers={depth}")
    last = attempt(partial(encoder, tokens, None, 1), "E13", who, "forward with layers=1")
    for out, count in ((full, depth), (last, 1)):
        wanted = (count, *tokens.valid.shape, encoder.width)
        got = None if out.layers is None else tuple(out.layers.shape)
        expect(got == wanted, "E13", who, f"layers={count} gives {got}, not {wanted}")
        moved = leaks.moved(whole, replace(out, layers=None), tokens.valid)
        expect(not moved, "E13", who, f"asking for layers changes the output: {moved}")
    assert full.layers is not None
    assert last.layers is not None
    words = apart(full.layers[-1][tokens.valid], last.layers[0][tokens.valid], close=True)
    expect(not words, "E13", who, f"the last of {depth} layers is not the one that layers=1 gives: {words}")
    if depth > 1:
        words = apart(full.layers[0][tokens.valid], full.layers[-1][tokens.valid], close=True)
        expect(bool(words), "E13", who, f"the first and the last of {depth} layers are the same")


def _state(encoder: Encoder, tokens: Tokens, again: Callable[[], Encoder] | None, who: str) -> None:
    """E18 and the seed's half of E19."""
    if again is None:
        return
    made: list[Encoder] = []
    for seed in (0, 0, 1):
        with chance(seed):
            made.append(attempt(again, "E19", who, "making it again").eval())
    words = unequal(made[0].state_dict(), made[1].state_dict())
    expect(not words, "E19", who, f"made twice from one seed, it has two states: {words}")
    source, target = made[0], made[2]
    for weight in source.parameters():
        nn.init.normal_(weight, std=0.05)
    attempt(partial(target.load_state_dict, source.state_dict()), "E18", who, "load_state_dict of its own state")
    with torch.no_grad():
        moved = leaks.moved(source(tokens), target(tokens), tokens.valid)
    expect(not moved, "E18", who, f"an encoder with another's state_dict gives other outputs: {moved}")
