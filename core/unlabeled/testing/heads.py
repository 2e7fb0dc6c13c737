"""What an encoder offers to terms and training: content, predictor, autocast, gradient: E14 … E17."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unlabeled.contract import Encoder, Tokens
from unlabeled.masking import lowest, per_sample
from unlabeled.testing.leaks import rolled
from unlabeled.testing.promises import apart, attempt, expect


def half(tokens: Tokens) -> Tensor:
    """[B, N] bool: half of each sample's valid tokens, the same at every call."""
    score = torch.rand(tokens.valid.shape, generator=torch.Generator().manual_seed(1))
    return lowest(score, tokens.valid, tokens.owner, per_sample(tokens)[1] // 2)


def check_content(encoder: Encoder, tokens: Tokens, who: str) -> None:
    """E14."""
    content = encoder.content
    if content is None:
        return
    expect(isinstance(content.width, int) and content.width > 0, "E14", who, f"content.width is {content.width!r}")
    guess = torch.randn(*tokens.valid.shape, content.width, requires_grad=True)
    loss = attempt(partial(content.loss, guess, tokens), "E14", who, "content.loss")
    got, wanted = tuple(loss.shape), tuple(tokens.valid.shape)
    expect(got == wanted, "E14", who, f"content.loss gives {got}, not a number a token, {wanted}")
    expect(loss.isfinite().all(), "E14", who, "content.loss is not finite everywhere (padding included)")
    row, place = tokens.valid.nonzero()[0].tolist()
    expect(loss.requires_grad, "E14", who, "content.loss has no gradient")
    (gradient,) = torch.autograd.grad(loss[row, place], guess, retain_graph=True)
    gradient[row, place] = 0
    expect(not gradient.any(), "E14", who, f"the loss of token ({row}, {place}) depends on the prediction of others")
    (gradient,) = torch.autograd.grad(loss.sum(), guess)
    expect(gradient.isfinite().all(), "E14", who, "the gradient of content.loss is not finite")
    expect(bool(gradient[tokens.valid].any()), "E14", who, "the gradient of content.loss is zero at every valid token")


def check_predictor(encoder: Encoder, tokens: Tokens, who: str) -> None:
    """E15."""
    predictor = attempt(partial(encoder.predictor, 5, 32, 1), "E15", who, "predictor(5, 32, 1)")
    if predictor is None:
        return
    predictor.eval()
    wanted = half(tokens)
    seen = tokens.valid & ~wanted
    with torch.no_grad():
        latent = encoder(tokens, wanted).tokens
        out = attempt(partial(predictor, latent, tokens, seen, wanted), "E15", who, "the predictor")
        got, shape = tuple(out.shape), (*tokens.valid.shape, 5)
        expect(got == shape, "E15", who, f"predictor(5, 32, 1) predicts {got}, not {shape}")
        expect(out[wanted].isfinite().all(), "E15", who, "predictions at wanted places are not finite")
        other = replace(tokens, values=rolled(tokens.values) + 1)
        words = apart(out[wanted], predictor(latent, other, seen, wanted)[wanted], close=True)
        expect(not words, "E15", who, f"with other values of the tokens, predictions differ: {words}")
        words = apart(out[wanted], predictor(latent * 2, tokens, seen, wanted)[wanted], close=True)
        expect(bool(words), "E15", who, "predictions do not depend on the tokens that are seen")


def check_autocast(encoder: Encoder, tokens: Tokens, who: str) -> None:
    """E16."""
    for what, hidden in (("nothing hidden", None), ("half of the tokens hidden", half(tokens))):
        with torch.no_grad(), torch.autocast(tokens.values.device.type, torch.bfloat16):
            out = attempt(partial(encoder, tokens, hidden), "E16", who, f"bfloat16 forward with {what}")
        finite = out.instances.isfinite().all()
        if encoder.has_tokens:
            finite = finite & out.tokens[tokens.valid].isfinite().all()
        expect(finite, "E16", who, f"in bfloat16 with {what}, outputs are not finite")


def check_gradient(encoder: Encoder, tokens: Tokens, who: str) -> None:
    """E17: of everything that comes out, with and without hidden tokens, in training mode."""
    training = copy.deepcopy(encoder).train()
    training.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for hidden in (None, half(tokens)):
        out = attempt(partial(training, tokens, hidden), "E17", who, "forward in training mode")
        parts = [out.instances, *([out.tokens[tokens.valid]] if encoder.has_tokens else [])]
        for part in parts:
            total = total + (part * torch.randn_like(part)).sum()
    trainable = {name: weight for name, weight in training.named_parameters() if weight.requires_grad}
    if not trainable:
        return
    expect(total.requires_grad, "E17", who, "the outputs have no gradient although it has trainable parameters")
    attempt(total.backward, "E17", who, "the backward pass")
    for name, weight in trainable.items():
        expect(weight.grad is not None, "E17", who, f"parameter {name!r} takes no part in the output")
        assert weight.grad is not None
        expect(weight.grad.isfinite().all(), "E17", who, f"the gradient of {name!r} is not finite")
    moving = [name for name, weight in trainable.items() if weight.grad is not None and weight.grad.any()]
    expect(bool(moving), "E17", who, "every gradient is zero")
