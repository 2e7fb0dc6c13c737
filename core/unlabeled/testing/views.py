"""check_view: the promises V1 … V8."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.contract import Batch, Kind, Sample, View
from unlabeled.data.collate import collate as stack
from unlabeled.randomness import Draws, sample_keys
from unlabeled.testing.promises import attempt, chance, chance_state, expect, kept, rows, unequal

KINDS: tuple[Kind, ...] = get_args(Kind)
Collate = Callable[[Sequence[Sample]], Batch]


def check_view(view: View, samples: Sequence[Sample], *, collate: Collate | None = None, name: str = "") -> None:
    """Run the promises V1 … V8 of docs/plugins.md, for every kind of view.

    Args:
        samples: two or more, as a reader reads them.
        collate: makes a batch of samples; None: tensors of equal shape are stacked.
        name: what to call the view in messages.

    V4 is checked where every tensor of a batch has a row a sample.

    Raises:
        BrokenPromise: the first promise that is not kept.
    """
    who = name or f"view {type(view).__name__}"
    expect(isinstance(view, View), "V1", who, "it is no subclass of unlabeled.contract.View")
    join = collate or _stack
    keys = sample_keys(0, 0, torch.arange(len(samples)))
    for kind in KINDS:
        made, joined, batch = _run(view, samples, kind, keys, join, who)
        _form(samples, made, joined, batch, kind, who)
        _pure(view, samples, batch, kind, keys, join, who)
        _rowwise(view, joined, batch, kind, keys, who)
        if view.transforms and kind != "whole":
            _transforms(view, batch, kind, len(keys), who)
    _whole(view, samples, keys, join, who)


def _stack(samples: Sequence[Sample]) -> Batch:
    return stack(samples, plugins.core())


def make_view(view: View, samples: Sequence[Sample], kind: Kind, keys: Tensor, collate: Collate) -> Batch:
    """Both stages of one view of each sample, as the loader runs them."""
    made = [view.sample(sample, kind, one) for sample, one in zip(samples, Draws(keys).each(), strict=True)]
    return view.batch(collate(made), kind, Draws(keys).fork("batch"))


def _run(
    view: View, samples: Sequence[Sample], kind: Kind, keys: Tensor, collate: Collate, who: str
) -> tuple[list[Sample], Batch, Batch]:
    """V3, and both stages: samples made, their batch, and the batch made of it."""
    made: list[Sample] = []
    for at, (sample, row) in enumerate(zip(samples, Draws(keys).each(), strict=True)):
        before = kept(sample)
        made.append(attempt(partial(view.sample, sample, kind, row), "V1", who, f"sample {at}, kind {kind!r},"))
        words = unequal(before, sample)
        expect(not words, "V3", who, f"the sample stage of kind {kind!r} changed sample {at}: {words}")
    joined = attempt(partial(collate, made), "V5", who, f"collating views of kind {kind!r}")
    before = kept(joined)
    batch = attempt(partial(view.batch, joined, kind, Draws(keys).fork("batch")), "V1", who, f"batch, kind {kind!r},")
    words = unequal(before, joined)
    expect(not words, "V3", who, f"the batch stage of kind {kind!r} changed its batch: {words}")
    return made, before, batch


def _form(samples: Sequence[Sample], made: Sequence[Sample], joined: Batch, batch: Batch, kind: Kind, who: str) -> None:
    """V5."""
    for stage, before, after in (("sample", samples[0], made[0]), ("batch", joined, batch)):
        lost = sorted(set(before) - set(after))
        expect(not lost, "V5", who, f"the {stage} stage of kind {kind!r} loses {lost}")
    for name, value in batch.items():
        expect(isinstance(value, Tensor), "V5", who, f"kind {kind!r}: {name!r} is {type(value).__name__}, not a tensor")
        if name in joined and rows(joined[name], len(samples)):
            count = len(value) if value.dim() else 0
            expect(count == len(samples), "V5", who, f"kind {kind!r}: {name!r} has {count} rows of {len(samples)}")
        infinite = value.is_floating_point() and bool(value.isinf().any())
        expect(not infinite, "V5", who, f"kind {kind!r}: {name!r} is infinite")


def _pure(
    view: View, samples: Sequence[Sample], batch: Batch, kind: Kind, keys: Tensor, collate: Collate, who: str
) -> None:
    """V1, V2 and V7."""
    others = []
    for seed in (1, 2):
        with chance(seed):
            before = chance_state()
            others.append(make_view(view, samples, kind, keys, collate))
            moves = before != chance_state()
        expect(not moves, "V2", who, f"kind {kind!r} moves a global random state (torch, numpy or random)")
    words = unequal(batch, make_view(view, samples, kind, keys, collate))
    expect(not words, "V1", who, f"kind {kind!r} differs at a second run with the same draws: {words}")
    for other in others:
        words = unequal(batch, other)
        expect(not words, "V2", who, f"kind {kind!r} follows a global random state: {words}")
    copy: View = attempt(lambda: pickle.loads(pickle.dumps(view)), "V7", who, "pickling")
    words = unequal(batch, make_view(copy, samples, kind, keys, collate))
    expect(not words, "V7", who, f"the copy makes another view of kind {kind!r}: {words}")


def _rowwise(view: View, joined: Batch, batch: Batch, kind: Kind, keys: Tensor, who: str) -> None:
    """V4: some rows, in another order, give the same rows."""
    count = len(keys)
    if not all(rows(value, count) for value in (*joined.values(), *batch.values())):
        return
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for what, chosen in (("in another order", order), ("halved", order[: count // 2]), ("alone", order[:1])):
        part = {name: value[chosen] for name, value in joined.items()}
        draws = Draws(keys).fork("batch").rows(chosen)
        out = attempt(partial(view.batch, part, kind, draws), "V4", who, f"batch, rows {what},")
        words = unequal({name: value[chosen] for name, value in batch.items()}, out, close=True)
        expect(not words, "V4", who, f"kind {kind!r}, rows {what} ({chosen.tolist()}): {words}")


def _transforms(view: View, batch: Batch, kind: Kind, count: int, who: str) -> None:
    """V8: number 0 does nothing, others change no form, and each row goes by its own number."""
    expect(view.transforms > 1, "V8", who, "it knows one transform, the identity: 0 says that it knows none")
    before = kept(batch)
    made = []
    for number in range(view.transforms):
        which = torch.full((count,), number)
        out = attempt(partial(view.transform, batch, which), "V8", who, f"transform {number}, kind {kind!r},")
        shapes = {name: tuple(value.shape) for name, value in out.items()}
        expected = {name: tuple(value.shape) for name, value in batch.items()}
        expect(shapes == expected, "V8", who, f"transform {number} makes {shapes} of {expected}")
        made.append(out)
    words = unequal(before, batch)
    expect(not words, "V8", who, f"transform changed its batch: {words}")
    words = unequal(batch, made[0])
    expect(not words, "V8", who, f"transform 0 is not the identity: {words}")
    expect(bool(unequal(made[0], made[-1])), "V8", who, f"transform {view.transforms - 1} is the identity too")
    if all(rows(value, count) for value in batch.values()):
        which = torch.arange(count) % view.transforms
        mixed = view.transform(batch, which)
        goal = {name: torch.stack([made[k][name][i] for i, k in enumerate(which.tolist())]) for name in batch}
        words = unequal(goal, mixed, close=True)
        expect(not words, "V8", who, f"rows do not go by their own numbers: {words}")


def _whole(view: View, samples: Sequence[Sample], keys: Tensor, collate: Collate, who: str) -> None:
    """V6."""
    first = make_view(view, samples, "whole", keys, collate)
    for seed in (1, 2):
        other = make_view(view, samples, "whole", sample_keys(seed, 3, torch.arange(len(samples))), collate)
        words = unequal(first, other)
        expect(not words, "V6", who, f"other draws make another 'whole' view: {words}")
