"""Random numbers that belong to samples, not to processes.

A draw is a hash of (key of the sample, number of the draw, position), so that a view or a mask depends on
(seed, epoch, sample, view) alone: not on the batch it came in, the worker that made it, the rank that holds
it or what was drawn before a restart. That one property carries exact resume and independence of the number
of GPUs. The mixing function is that of SplitMix64 (Steele et al., OOPSLA 2014).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import cached_property, reduce

import torch
from torch import Tensor

__all__ = ["Draws", "sample_keys"]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)
_ALL = (1 << 64) - 1
FEW = 16  # numbers for one sample, up to which Python's own are faster than a dozen tensors


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, whose own shift keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: every input bit reaches every output bit; int64 products wrap around."""
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _mix_one(x: int) -> int:
    """The same of one number, 0 … 2⁶⁴ − 1."""
    x &= _ALL
    x = (x ^ x >> 30) * _MIX1 & _ALL
    x = (x ^ x >> 27) * _MIX2 & _ALL
    return x ^ x >> 31


def _label(label: int | str) -> int:
    return zlib.crc32(label.encode()) + (1 << 33) if isinstance(label, str) else label


def sample_keys(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Keys [B] int64 of samples [B] int64 in one epoch of one run."""
    run = _signed((seed * 1_000_003 + epoch) % (1 << 64))  # any seed, however large
    start = _mix(_mix(torch.tensor(run, dtype=torch.int64) + _GOLDEN) + _GOLDEN)  # mixed once, it would be an index's
    return _mix(_mix(indices + _GOLDEN) ^ start)


class Draws:
    """Random numbers for a batch of samples: row i of every draw depends on `keys[i]` and the draw's number.

    One sample's few numbers, which views ask for in workers, are made without tensors, and are the same.

    Args:
        keys: [B] int64.
        step: [B] int64, keys that the samples of a step and a view have in common, on every rank; none: there is no
            step.
        path: labels of the forks since then, which those keys still have to follow.
    """

    def __init__(self, keys: Tensor, step: Tensor | None = None, path: tuple[int | str, ...] = ()):
        self.keys = keys
        self._step, self._path = step, path  # followed when asked for: few views share anything
        self._calls = 0

    @cached_property
    def _one(self) -> int | None:
        """The key of a single sample on a CPU."""
        alone = len(self.keys) == 1 and self.keys.device.type == "cpu" and not torch.compiler.is_compiling()
        return int(self.keys) & _ALL if alone else None

    def __len__(self) -> int:
        return len(self.keys)

    def shared(self) -> Draws:
        """A stream whose rows are alike, for what all samples of a step share; another for each of its views."""
        alike = Draws(torch.zeros_like(self.keys) if self._step is None else self._step)
        return reduce(Draws.fork, self._path, alike)

    def fork(self, label: int | str) -> Draws:
        """An independent stream for a named purpose; forking does not advance this one."""
        path = () if self._step is None else (*self._path, label)
        if self._one is not None:
            keys = torch.tensor([_signed(_mix_one(self._one ^ _mix_one(_label(label) + _GOLDEN)))])
        else:
            keys = _mix(self.keys ^ _mix(torch.as_tensor(_label(label) + _GOLDEN, device=self.keys.device)))
        return Draws(keys, self._step, path)

    def rows(self, select: slice | Tensor) -> Draws:
        """The same stream for some of the samples."""
        part = Draws(self.keys[select], None if self._step is None else self._step[select], self._path)
        part._calls = self._calls
        return part

    def each(self) -> Iterator[Draws]:
        """The rows as streams of their own, as `rows` gives them."""
        numbers = self.keys.tolist() if self.keys.device.type == "cpu" else []
        for at in range(len(self)):
            one = self.rows(slice(at, at + 1))
            if numbers:
                one.__dict__["_one"] = numbers[at] & _ALL  # known: nothing has to be asked of the tensor
            yield one

    def numbers(self, count: int) -> list[float]:
        """What `uniform(count)` holds of a single sample, in [0, 1)."""
        few = self._few(count)
        out: list[float] = self.uniform(count)[0].tolist() if few is None else [(one >> 40) * 2.0**-24 for one in few]
        return out

    def folded(self, rows: int = 1) -> Draws:
        """Other rows: each depends on an equal share of the keys in their order, or on all where there is no such."""
        count = rows if len(self.keys) % rows == 0 else 1
        place = torch.arange(len(self.keys) // count, device=self.keys.device)
        keys = _mix(_mix(self.keys.view(count, -1) ^ _mix(place + _GOLDEN)).sum(1))
        return Draws(keys if count == rows else _mix(keys ^ _mix(torch.arange(rows, device=keys.device) + _GOLDEN)))

    def bits(self, *shape: int) -> Tensor:
        """[B, *shape] int64 of uniform bits."""
        count = math.prod(shape)
        few = self._few(count)
        if few is not None:
            return torch.tensor([_signed(bits) for bits in few], dtype=torch.int64).view(1, *shape)
        self._calls += 1
        place = torch.arange(count, device=self.keys.device) + (self._calls << 40)
        return _mix(self.keys[:, None] ^ _mix(place * _GOLDEN)[None]).view(len(self.keys), *shape)

    def _few(self, count: int) -> list[int] | None:
        """What `bits` holds, where it is a few numbers of one sample; else None, and nothing is drawn."""
        if self._one is None or count > FEW:
            return None
        self._calls += 1
        first = self._calls << 40
        return [_mix_one(self._one ^ _mix_one((place + first) * _GOLDEN)) for place in range(count)]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """[B, *shape] float32 in [0, 1), or in [low, high], where float32 may round up to high."""
        few = self._few(math.prod(shape))
        if few is not None:
            unit = torch.tensor([(bits >> 40) * 2.0**-24 for bits in few]).view(1, *shape)
        else:
            unit = _shift(self.bits(*shape), 40).float() * 2.0**-24
        return unit * (high - low) + low if (low, high) != (0.0, 1.0) else unit

    def uniform_at(self, row: Tensor, place: Tensor) -> Tensor:
        """float32 in [0, 1): at (row, place) what `uniform(n)` would hold there; int64 tensors of one shape."""
        self._calls += 1
        bits = _mix(self.keys[row] ^ _mix((place + (self._calls << 40)) * _GOLDEN))
        return _shift(bits, 40).float() * 2.0**-24

    def normal(self, *shape: int) -> Tensor:
        """[B, *shape] float32, standard normal (Box-Muller)."""
        radius = (-2 * (1 - self.uniform(*shape)).log()).sqrt()
        return radius * (2 * math.pi * self.uniform(*shape)).cos()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """[B, *shape] int64 in [low, high)."""
        return low + _shift(self.bits(*shape), 1) % (high - low)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """[B, *shape] bool, True with the probability."""
        return self.uniform(*shape) < probability

    def seed(self, row: int = 0) -> int:
        """A number below 2⁶³ from one sample's key, for generators of other libraries."""
        self._calls += 1
        return int(_mix(self.keys[row] ^ (self._calls << 40))) & ((1 << 63) - 1)

    def generator(self, row: int = 0) -> torch.Generator:
        """A torch generator seeded by one sample's key, for libraries that want one."""
        return torch.Generator().manual_seed(self.seed(row))
