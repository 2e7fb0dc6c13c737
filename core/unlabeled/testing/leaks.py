"""What must not reach an encoder's output, and what must: E8 … E11, E20. Content is changed, outputs are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unlabeled.contract import Alteration, Batch, Encoded, Encoder, Tokens
from unlabeled.masking import lowest, per_sample
from unlabeled.testing.promises import apart, attempt, expect, unequal

FAR = 1e4  # so large that the faintest leak shows
PLACES = 8  # tokens looked at one by one
TRIES = 12  # changes tried in each tensor of a batch


def moved(a: Encoded, b: Encoded, valid: Tensor, exact: bool = False) -> str:
    """How two outputs differ where they mean something, in words, or nothing."""
    words = apart(a.instances, b.instances, close=not exact)
    if words:
        return f"instances: {words}"
    for field, one, other in (("tokens", a.tokens, b.tokens), ("layers", a.layers, b.layers)):
        if one is not None and other is not None:
            keep = valid if field == "tokens" else valid.expand(one.shape[:-1])
            words = apart(one[keep], other[keep], close=not exact)
            if words:
                return f"{field} at valid places: {words}"
    return ""


def replaced(tokens: Tokens, where: Tensor) -> Iterator[tuple[str, Tokens]]:
    """Tokens with other values at the places [B, N]: another's, none, and far ones."""
    noise = torch.randn(tokens.values.shape, generator=torch.Generator().manual_seed(0)).to(tokens.values)
    for what, values in (
        ("another token's", rolled(tokens.values)),
        ("zero", torch.zeros_like(tokens.values)),
        (f"far (±{FAR:g})", noise * FAR),
    ):
        yield what, replace(tokens, values=torch.where(where[..., None], values, tokens.values))


def rolled(values: Tensor) -> Tensor:
    """Values of the same place in the sample before; of the place before, where there is one row."""
    return values.roll(1, 0) if len(values) > 1 else values.roll(1, 1)


def places(tokens: Tokens) -> list[int]:
    """Some columns of [B, N], first and last among them."""
    N = tokens.valid.shape[1]
    return sorted({round(float(x)) for x in torch.linspace(0, N - 1, min(N, PLACES))})


def masks(tokens: Tokens) -> Iterator[tuple[str, Tensor]]:
    """Masks of all sorts, one token of every sample seen at least: few hidden, many, and single places."""
    generator = torch.Generator().manual_seed(0)
    owner, count = per_sample(tokens)
    for what, wanted in (
        ("half of the tokens hidden", count // 2),
        ("a quarter of the tokens hidden", count // 4),
        ("all but one token hidden", count - 1),
        ("all hidden in one sample, but one, and nothing in the others", (count - 1) * (torch.arange(len(count)) == 0)),
    ):
        score = torch.rand(tokens.valid.shape, generator=generator)
        yield what, lowest(score, tokens.valid, tokens.owner, wanted)
    for place in places(tokens):
        hidden = torch.zeros_like(tokens.valid)
        hidden[:, place] = tokens.valid[:, place] & (count[owner[:, place]] > 1)
        yield f"token {place} alone hidden", hidden


def check_invalid(encoder: Encoder, tokens: Tokens, whole: Encoded, who: str) -> None:
    """E8."""
    if tokens.valid.all():
        return
    for what, other in replaced(tokens, ~tokens.valid):
        tried = f"with {what} values at places that are not valid"
        out = attempt(partial(encoder, other), "E8", who, f"forward {tried}")
        words = moved(whole, out, tokens.valid)
        expect(not words, "E8", who, f"{tried}, {words}")


def check_hidden(encoder: Encoder, tokens: Tokens, who: str) -> None:
    """E9, with layers where the encoder has them."""
    _, count = per_sample(tokens)
    expect(not encoder.has_tokens or bool((count > 1).any()), "E3", who, "no sample has two valid tokens")
    for what, hidden in masks(tokens):
        if not hidden.any():
            continue
        first = attempt(partial(encoder, tokens, hidden, encoder.depth), "E9", who, f"forward with {what}")
        if encoder.has_tokens:
            finite = first.tokens is not None and first.tokens[tokens.valid].isfinite().all()
            expect(finite, "E9", who, f"with {what}, tokens are missing or not finite")
        for values, other in replaced(tokens, hidden):
            tried = f"with {what} and {values} values there"
            out = attempt(partial(encoder, other, hidden, encoder.depth), "E9", who, f"forward {tried}")
            words = moved(first, out, tokens.valid)
            expect(not words, "E9", who, f"{tried}, {words}")


def check_mixing(encoder: Encoder, tokens: Tokens, whole: Encoded, who: str) -> None:
    """E20: shape, doing nothing is doing nothing, a blank hides, and what is exchanged arrives."""
    if not encoder.embed_width:
        return
    embedded = attempt(partial(encoder.embed, tokens), "E20", who, "embed")
    wanted = (*tokens.valid.shape, encoder.embed_width)
    expect(tuple(embedded.shape) == wanted, "E20", who, f"embed gives {tuple(embedded.shape)}, not {wanted}")

    def run(values: Tokens, alter: Alteration) -> Encoded:
        out: Encoded = attempt(partial(encoder, values, alter=alter), "E20", who, "forward with alter")
        return out

    words = moved(whole, run(tokens, Alteration()), tokens.valid)
    expect(not words, "E20", who, f"an alteration that does nothing changes {words}")
    token = torch.linspace(-1, 2, encoder.embed_width).to(embedded)  # a constant one would vanish in a layer norm
    for what, blank in masks(tokens):
        if not blank.any():
            continue
        first = run(tokens, Alteration(blank, token))
        for values, other in replaced(tokens, blank):
            out = run(other, Alteration(blank, token))
            words = moved(first, out, tokens.valid)
            expect(not words, "E20", who, f"with {what} by a blank and {values} values there, {words}")
        out = run(tokens, Alteration(blank, -token))
        words = moved(first, out, tokens.valid)
        expect(bool(words), "E20", who, f"with {what} by a blank, it is all the same which blank")


def check_seen(encoder: Encoder, tokens: Tokens, whole: Encoded, who: str) -> None:
    """E11: at each place, other content (that of another sample) gives another token and other instances."""
    owner, _ = per_sample(tokens)
    other = rolled(tokens.values)
    valid_too = rolled(tokens.valid[..., None])[..., 0]
    tried = 0
    for place in places(tokens):
        change = torch.zeros_like(tokens.valid)
        change[:, place] = (tokens.valid & valid_too & (other != tokens.values).any(-1))[:, place]
        if not change.any():  # a constant column, a border that is empty in every sample
            continue
        tried += 1
        out = encoder(replace(tokens, values=torch.where(change[..., None], other, tokens.values)))
        samples = owner[change]
        if len(whole.instances) == len(per_sample(tokens)[1]):
            same = (out.instances[samples] == whole.instances[samples]).all(-1)
            expect(not same.all(), "E11", who, f"other content of token {place} changes no instance")
        if encoder.has_tokens and whole.tokens is not None:
            same = (out.tokens[change] == whole.tokens[change]).all(-1)
            expect(not same.all(), "E11", who, f"other content of token {place} does not change that token's output")
    expect(tried > 0, "E11", who, "no two samples of the example differ at any place that was looked at")


def changes(batch: Batch) -> Iterator[tuple[str, Batch]]:
    """Batches in which one entry of one tensor is another's: content for some, structure for others."""
    generator = torch.Generator().manual_seed(0)
    for name, value in batch.items():
        if value.dim() == 0 or value.numel() == 0:
            continue
        flat = value.reshape(len(value), -1)
        for _ in range(TRIES):
            row, column = (int(torch.randint(size, (), generator=generator)) for size in flat.shape)
            others = flat[:, column][(flat[:, column] != flat[row, column]) & (flat[:, column] == flat[:, column])]
            new = flat.clone()
            if len(others):
                new[row, column] = others[int(torch.randint(len(others), (), generator=generator))]
            elif value.is_floating_point():
                new[row, column] = new[row, column].nan_to_num() + 1
            else:
                continue
            yield f"another entry ({row}, {column}) in {name!r} of the batch", {**batch, name: new.view_as(value)}


def check_context(encoder: Encoder, batch: Batch, tokens: Tokens, who: str) -> None:
    """E10: a change of the batch that changes only the values of some tokens must, with these hidden, change nothing.

    What changes coords, valid or owner too is a change of structure, and may show in the context.
    """
    owner, count = per_sample(tokens)
    if int(count.max()) < 2:  # one token a sample: nothing can be hidden
        return
    tried = 0
    for what, other_batch in changes(batch):
        try:
            other = encoder.tokenize(other_batch)
        except Exception:  # it damaged the structure of the batch; that is no content
            continue
        hidden = _only_values(tokens, other)
        if hidden is None or not hidden.any():
            continue
        left = torch.zeros_like(count).index_add_(0, owner.flatten(), (tokens.valid & ~hidden).flatten().long())
        if not left[owner[hidden]].all():  # some sample would have nothing left to see
            continue
        tried += 1
        where = f"{what}, which changes the content of token {tuple(hidden.nonzero()[0].tolist())}"
        words = unequal(tokens.context, other.context)
        expect(not words, "E10", who, f"{where}, changes the context: {words}")
        # cut again, one right before each pass: a module may keep what it should not
        first = encoder(encoder.tokenize(batch), hidden)
        words = moved(first, encoder(encoder.tokenize(other_batch), hidden), tokens.valid)
        expect(not words, "E10", who, f"{where}, changes the output although it is hidden: {words}")
    expect(tried > 0, "E10", who, "no change of one entry of the batch leaves any token of its sample as it was")


def _only_values(a: Tokens, b: Tokens) -> Tensor | None:
    """[B, N]: valid tokens whose values differ; None where more than values differ."""
    if a.values.shape != b.values.shape or not a.valid.equal(b.valid) or not a.coords.equal(b.coords):
        return None
    for one, other in ((a.owner, b.owner), (a.where, b.where)):
        if one is not None and (other is None or not one.equal(other)):
            return None
    return (a.values != b.values).any(-1) & a.valid
