"""What a plugin promises, numbered as in docs/plugins.md, and the error that says which promise was broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence, and the part of the contract that it belongs to."""

    says: str
    contract: str  # a name in unlabeled.contract, or a hook


PROMISES: dict[str, Promise] = {
    "E1": Promise("tokenize returns Tokens of the widths that the encoder names", "Tokens"),
    "E2": Promise("values are finite and zero where nothing is valid; coords lie in [0, 1]", "Tokens"),
    "E3": Promise("every sample has at least one valid token, and the example has one with two", "Tokens.valid"),
    "E4": Promise("tokenize uses no weights", "Encoder.tokenize"),
    "E5": Promise("nothing that is passed in is changed in place", "Encoder"),
    "E6": Promise("in eval, the same input gives the same output and changes no state", "Encoder.forward"),
    "E7": Promise("outputs are finite and have the shapes of Encoded; hiding nothing is seeing all", "Encoded"),
    "E8": Promise("values at places that are not valid reach no output", "Encoder"),
    "E9": Promise("values at hidden places reach no output", "Encoder"),
    "E10": Promise("the context carries no hidden content", "Tokens.context"),
    "E11": Promise("the content of every valid token reaches the output", "Encoder.forward"),
    "E12": Promise("a sample is encoded the same alone as in a batch", "Encoder.forward"),
    "E13": Promise("up to `depth` layers' tokens come on request, the oldest first, and are as well hidden", "Encoder"),
    "E14": Promise("content.loss gives a finite loss a token, of that token alone, with a gradient", "Content"),
    "E15": Promise("a predictor predicts at the wanted places, and never looks at values", "Encoder.predictor"),
    "E16": Promise("forward works under bfloat16 autocast", "Encoder.forward"),
    "E17": Promise("the gradient reaches every trainable parameter", "Encoder"),
    "E18": Promise("state_dict holds all that an encoder has learnt", "Encoder"),
    "E19": Promise("an encoder follows from its facts, read back from JSON, and the seed", "Facts"),
    "E20": Promise("at the mixing point a blank hides a token, and doing nothing changes nothing", "Encoder.embed"),
    "R1": Promise("samples are mappings of the same names to tensors; an index past the end raises", "Reader"),
    "R2": Promise("sample i is the same at every read, without touching or needing global chance", "Reader"),
    "R3": Promise("a reader pickles, and its copy reads the same", "Reader"),
    "R4": Promise("names are text, a different one for each sample", "Reader.name"),
    "R5": Promise("batch(indices) is None or what collating the samples gives", "Reader.batch"),
    "R6": Promise("facts are plain JSON and do not change by reading", "Facts"),
    "R7": Promise("made again with its facts, a reader has the same facts and samples", "Reader"),
    "R8": Promise("samples have no infinite value; what is missing is NaN", "Reader"),
    "R9": Promise("an item that says 'broken' in its name raises at every read, and no other does", "Reader"),
    "R10": Promise("raw, describe, summary and labels keep their form; an unknown label is a UserError", "Reader"),
    "V1": Promise("the same draws make the same view", "View"),
    "V2": Promise("a view neither uses nor moves global chance", "View"),
    "V3": Promise("a view changes nothing in place", "View"),
    "V4": Promise("row i of a batch depends on row i and its draws alone", "View.batch"),
    "V5": Promise("names and number of samples stay, views of one kind make one batch, nothing is infinite", "View"),
    "V6": Promise("a 'whole' view is the same whatever the draws", "Kind"),
    "V7": Promise("a view pickles, and its copy makes the same views", "View"),
    "V8": Promise("transform 0 is the identity, all keep the form of a batch, row i goes by its own number", "View"),
    "P1": Promise("each reader reads an example that the plugin writes, four samples at least", "unlabeled_example"),
    "P2": Promise("a domain offers a reader, a view and an encoder", "unlabeled_encoders"),
    "P3": Promise("every encoder takes every kind of every view", "View"),
    "P4": Promise("every encoder learns by every method, or is refused in a sentence", "Encoder.has_tokens"),
    "P5": Promise("no option of a reader is called as a flag of `pretrain`", "Reader"),
}


class BrokenPromise(AssertionError):
    """A plugin does not do what it must; `code` is the promise's number in docs/plugins.md."""

    def __init__(self, code: str, who: str, what: str):
        self.code = code
        promise = PROMISES[code]
        super().__init__(
            f"{who} breaks promise {code}: {promise.says}.\n  {what}\n"
            f"  (docs/plugins.md, {code}; {_place(promise.contract)})"
        )


def _place(contract: str) -> str:
    module = "hookspecs" if contract.startswith("unlabeled_") else "contract"
    return f"unlabeled.{module}.{contract}"


def expect(kept: bool | Tensor, code: str, who: str, what: str) -> None:
    """Raise BrokenPromise unless the promise is kept."""
    if not kept:
        raise BrokenPromise(code, who, what)


def attempt(do: Callable[[], T], code: str, who: str, what: str) -> T:
    """The result, or BrokenPromise with what was tried and the error that came of it."""
    try:
        return do()
    except BrokenPromise:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise BrokenPromise(code, who, f"{what} raises {type(error).__name__}: {error}") from error


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Global random states set from a seed inside, and as they were outside."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def chance_state() -> tuple[Any, ...]:
    """All global random states, to be compared."""
    state: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), state[1].tolist(), state[2], random.getstate()


def kept(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy that no change in place can reach."""
    return {name: value.clone() for name, value in batch.items()}


def unequal(a: Mapping[str, Tensor], b: Mapping[str, Tensor], close: bool = False) -> str:
    """The first difference of two samples or batches in words, or nothing. NaN equals NaN."""
    if set(a) != set(b):
        return f"names {sorted(a)} against {sorted(b)}"
    return next((f"{name!r}: {words}" for name in a if (words := apart(a[name], b[name], close))), "")


def apart(a: Tensor, b: Tensor, close: bool = False) -> str:
    """How two tensors differ, in words, or nothing; `close` allows for another order of floating-point sums."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{tuple(a.shape)} {a.dtype} against {tuple(b.shape)} {b.dtype}"
    if not a.is_floating_point():
        wrong = a != b
        return f"{int(wrong.sum())} of {a.numel()} entries differ" if wrong.any() else ""
    scale = float(a.detach().nan_to_num().abs().amax()) if a.numel() else 0.0
    atol = 1e-4 * max(scale, 1e-6) if close else 0.0
    wrong = ~torch.isclose(a, b, rtol=1e-3 if close else 0.0, atol=atol, equal_nan=True)
    if not wrong.any():
        return ""
    far = (a - b).abs()[wrong].nan_to_num(nan=float("inf")).max()
    return f"entry {tuple(wrong.nonzero()[0].tolist())} of {tuple(a.shape)} differs, by up to {float(far):.3g}"


def rows(value: Tensor, count: int) -> bool:
    """Whether a tensor of a batch has one row a sample."""
    return value.dim() > 0 and len(value) == count
