"""check_reader: the promises R1 … R10."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from unlabeled import plugins
from unlabeled.contract import Batch, Reader, Sample
from unlabeled.data.collate import collate as stack
from unlabeled.errors import UserError
from unlabeled.testing.promises import attempt, chance, chance_state, expect, unequal

MOST = 16  # items that are looked at
MARK = "broken"  # in the name of an item that the example damaged on purpose

Collate = Callable[[Sequence[Sample]], Batch]


def check_reader(make: Callable[..., Reader], *, collate: Collate | None = None, name: str = "") -> None:
    """Run the promises R1 … R10 of docs/plugins.md.

    Args:
        make: `make()` opens the example, `make(facts=...)` opens it with facts that are already known. An item of
            the example with "broken" in its name must raise; every other must be readable.
        collate: makes a batch of samples; None: tensors of equal shape are stacked.
        name: what to call the reader in messages.

    Raises:
        BrokenPromise: the first promise that is not kept.
    """
    reader = attempt(make, "R1", name or "the reader", "opening the example")
    who = name or f"reader {type(reader).__name__}"
    samples = _samples(reader, who)
    _repeats(reader, samples, who)
    _facts(make, reader, samples, who)
    _pickles(reader, samples, who)
    _names(reader, who)
    _batches(reader, samples, collate or _stack, who)
    _extras(reader, list(samples), who)


def _stack(samples: Sequence[Sample]) -> Batch:
    return stack(samples, plugins.core())


def damaged(reader: Reader, index: int) -> bool:
    """Whether the example damaged this item on purpose."""
    return MARK in str(reader.name(index)).lower()


def some(reader: Reader) -> list[int]:
    """Up to MOST items, first and last among them, and every damaged one."""
    return sorted({*reader.some(MOST), *(index for index in range(min(len(reader), 1000)) if damaged(reader, index))})


def _samples(reader: Reader, who: str) -> dict[int, Sample]:
    """R1, R8 and R9: the items that can be read."""
    expect(isinstance(reader, Reader), "R1", who, "it is no subclass of unlabeled.contract.Reader")
    count = attempt(lambda: len(reader), "R1", who, "len")
    expect(count > 0, "R1", who, "the example has no sample")
    samples: dict[int, Sample] = {}
    for index in some(reader):
        if damaged(reader, index):
            expect(_raises(reader, index), "R9", who, f"item {index}, {reader.name(index)!r}, is read nevertheless")
            expect(_raises(reader, index), "R9", who, f"item {index} raises once, and is read the second time")
        else:
            samples[index] = attempt(partial(reader.__getitem__, index), "R9", who, f"reading item {index}")
    expect(bool(samples), "R9", who, "not one item can be read")
    names = set(next(iter(samples.values())))
    for index, sample in samples.items():
        _sample(sample, names, index, who)
    for index in (count, count + 1000):
        expect(_raises(reader, index), "R1", who, f"item {index} of {count} is read")
    return samples


def _sample(sample: Any, names: set[str], index: int, who: str) -> None:
    expect(isinstance(sample, Mapping), "R1", who, f"item {index} is {type(sample).__name__}, not a mapping")
    got = sorted(map(str, sample))
    expect(set(sample) == names, "R1", who, f"item {index} has the names {got}, the first has {sorted(names)}")
    for name, value in sample.items():
        expect(isinstance(value, Tensor), "R1", who, f"item {index}: {name!r} is {type(value).__name__}, not a tensor")
        expect(not value.requires_grad, "R1", who, f"item {index}: {name!r} requires a gradient")
        expect(
            not (value.is_floating_point() and value.isinf().any()), "R8", who, f"item {index}: {name!r} is infinite"
        )


def _raises(reader: Reader, index: int) -> bool:
    try:
        reader[index]
    except Exception:  # the contract: BrokenItem or anything
        return True
    return False


def _repeats(reader: Reader, samples: Mapping[int, Sample], who: str) -> None:
    """R2: in another order, with other global chance."""
    for seed in (1, 2):
        with chance(seed):
            before = chance_state()
            for index in reversed(list(samples)):
                words = unequal(samples[index], reader[index])
                expect(not words, "R2", who, f"item {index} differs at a second read: {words}")
            expect(before == chance_state(), "R2", who, "reading moves a global random state (torch, numpy or random)")


def _pickles(reader: Reader, samples: Mapping[int, Sample], who: str) -> None:
    """R3."""
    copy: Reader = attempt(lambda: pickle.loads(pickle.dumps(reader)), "R3", who, "pickling")
    expect(len(copy) == len(reader), "R3", who, f"the copy has {len(copy)} samples, not {len(reader)}")
    for index, sample in samples.items():
        read = attempt(partial(copy.__getitem__, index), "R3", who, f"the copy, reading item {index},")
        words = unequal(sample, read)
        expect(not words, "R3", who, f"the copy reads another item {index}: {words}")
        expect(copy.name(index) == reader.name(index), "R3", who, f"the copy names item {index} differently")
    expect(copy.facts == reader.facts, "R3", who, "the copy has other facts")


def _names(reader: Reader, who: str) -> None:
    """R4."""
    seen: dict[str, int] = {}
    for index in range(min(len(reader), 1000)):
        name = reader.name(index)
        expect(isinstance(name, str), "R4", who, f"item {index} is called {name!r}, which is not text")
        expect(name not in seen, "R4", who, f"items {seen.get(name)} and {index} are both called {name!r}")
        seen[name] = index


def _batches(reader: Reader, samples: Mapping[int, Sample], collate: Collate, who: str) -> None:
    """R5: in order, backwards, with repeats (views of one sample), one alone."""
    good = list(samples)
    for indices in (good, good[::-1], [*good, *good], good[:1]):
        batch = attempt(partial(reader.batch, indices), "R5", who, f"batch({indices})")
        if batch is not None:
            words = unequal(batch, collate([samples[index] for index in indices]))
            expect(not words, "R5", who, f"batch({indices}) is not what its samples give: {words}")
    bad = [index for index in some(reader) if damaged(reader, index)]
    for index in bad:
        try:
            batch = reader.batch([good[0], index])
        except Exception:  # the core then reads the items one by one
            continue
        expect(batch is None, "R5", who, f"batch reads item {index}, which is broken")


def _facts(make: Callable[..., Reader], reader: Reader, samples: Mapping[int, Sample], who: str) -> None:
    """R6 and R7."""
    text = attempt(partial(json.dumps, reader.facts, allow_nan=False), "R6", who, "json.dumps(facts)")
    facts = json.loads(text)
    expect(json.dumps(facts) == text, "R6", who, "facts change on the way through JSON")
    expect(facts == reader.facts, "R6", who, "facts are not plain JSON: they are not equal to themselves read back")
    fresh = attempt(make, "R7", who, "opening the example again")
    expect(fresh.facts == reader.facts, "R6", who, "facts are not the same before and after reading")
    other = attempt(partial(make, facts=facts), "R7", who, "opening the example with its own facts")
    expect(other.facts == reader.facts, "R7", who, "made with facts, the reader has other facts")
    for index, sample in samples.items():
        words = unequal(sample, other[index])
        expect(not words, "R7", who, f"made with its own facts, it reads another item {index}: {words}")


def _extras(reader: Reader, good: Sequence[int], who: str) -> None:
    """R10."""
    raw = attempt(reader.raw, "R10", who, "raw")
    if raw is not None:
        fits = isinstance(raw, np.ndarray) and raw.ndim == 2 and len(raw) == len(reader) and raw.dtype == np.float32
        expect(fits, "R10", who, f"raw is {getattr(raw, 'shape', raw)}, not float32 [{len(reader)}, features]")
        expect(bool(np.isfinite(raw).all()), "R10", who, "raw has entries that are not finite")
    for index in good:
        about = attempt(partial(reader.describe, index), "R10", who, f"describe({index})")
        text = isinstance(about, Mapping) and all(isinstance(cell, str) for pair in about.items() for cell in pair)
        expect(text, "R10", who, f"item {index} is described by {about!r}, not by text for each name")
    table = attempt(reader.summary, "R10", who, "summary")
    expect(bool(table), "R10", who, "summary is empty")
    for row in table:
        text = all(isinstance(cell, str) for pair in row.items() for cell in pair)
        expect(text, "R10", who, f"summary has a row that is not text: {row}")
        expect(list(row) == list(table[0]), "R10", who, f"summary has rows of different keys: {row}, {table[0]}")
    try:
        reader.labels("no label is called so")
    except UserError:
        return
    except Exception as error:  # a traceback in a user's face
        expect(False, "R10", who, f"labels of an unknown name raises {type(error).__name__}: {error}")
    expect(False, "R10", who, "labels of an unknown name returns something")
