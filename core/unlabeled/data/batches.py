"""The batches of a run as a list: batch number n is a function of (seed, n) alone.

That makes the loader a plain map-style data set over steps: resuming is starting at another number, and how
many workers fetch, on how many ranks, changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from unlabeled.contract import Batch, Kind, Reader, Sample, View
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.plugins import Registry
from unlabeled.randomness import Draws, sample_keys

__all__ = ["Broken"]

Item = TypeVar("Item")

SMALL, ALIGNED = 1 << 15, 16  # bytes
HOLDS_OUT = 80  # samples from which on some are held out
TRIES = 64  # neighbours tried in place of a broken sample before the data are given up


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read."""

    index: int
    name: str
    reason: str

    @staticmethod
    def of(reader: Reader, index: int, error: Exception) -> Broken:
        """What a reader could not read, and why."""
        return Broken(index, reader.name(index), f"{type(error).__name__}: {error}")


@dataclass
class Step:
    """What one micro-batch needs; on the device after `to`."""

    views: Mapping[Kind, Batch]  # K views of B samples each, view after view
    keys: Mapping[Kind, Tensor]  # int64 [K × B]
    samples: Tensor  # int64 [B], numbers of those that were read
    broken: Sequence[Broken] = ()
    transforms: Mapping[Kind, Tensor] = field(default_factory=dict)  # int64 [K × B], where the method asks for them
    shared: Mapping[Kind, Tensor] = field(default_factory=dict)  # int64 [K × B], keys of the step and the view alone

    def __getstate__(self) -> dict[str, Any]:
        """For another process: small tensors as one, since a piece of shared memory each costs more than they do.

        They do not go as bytes: a worker whose run was killed would wait forever for somebody to read its full pipe.
        """
        small: list[Tensor] = []
        state = {one.name: _packed(getattr(self, one.name), small) for one in fields(self)}
        return {**state, "small": torch.cat(small) if small else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        small = state.pop("small")
        self.__dict__.update({name: _unpacked(value, small) for name, value in state.items()})

    def to(self, device: torch.device) -> Step:
        """On a device; copies from pinned memory do not wait."""

        def moved(tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
            return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}

        views = {kind: moved(batch) for kind, batch in self.views.items()}
        samples = self.samples.to(device, non_blocking=True)
        return replace(
            self,
            views=views,
            keys=moved(self.keys),
            samples=samples,
            transforms=moved(self.transforms),
            shared=moved(self.shared),
        )

    def pin_memory(self) -> Step:
        views = {kind: {name: x.pin_memory() for name, x in batch.items()} for kind, batch in self.views.items()}
        keys = {kind: keys.pin_memory() for kind, keys in self.keys.items()}
        shared = {kind: keys.pin_memory() for kind, keys in self.shared.items()}
        return replace(self, views=views, keys=keys, samples=self.samples.pin_memory(), shared=shared)


class _Small(NamedTuple):
    """Where a tensor lies among the bytes of all small ones."""

    start: int
    shape: torch.Size
    dtype: torch.dtype


def _packed(value: Any, small: list[Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {name: _packed(one, small) for name, one in value.items()}
    if (
        type(value) is not Tensor
        or value.nbytes >= SMALL
        or value.device.type != "cpu"
        or value.layout != torch.strided
    ):
        return value
    start = sum(map(len, small))
    small.append(F.pad(value.contiguous().view(-1).view(torch.uint8), (0, -value.nbytes % ALIGNED)))
    return _Small(start, value.shape, value.dtype)


def _unpacked(value: Any, small: Tensor) -> Any:
    if isinstance(value, _Small):
        count = value.shape.numel() * value.dtype.itemsize
        return small[value.start : value.start + count].view(value.dtype).view(value.shape)
    if isinstance(value, Mapping):
        return {name: _unpacked(one, small) for name, one in value.items()}
    return value


@dataclass(frozen=True)
class Order:
    """Which samples make which step: a permutation an epoch, cut into global batches, cut into ranks' shares."""

    samples: Tensor  # int64, the training samples
    batch_size: int
    seed: int
    accumulate: int = 1
    world: int = 1
    rank: int = 0
    _epochs: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        parts = self.accumulate * self.world
        if self.batch_size % parts:
            raise UserError(
                f"batch size {self.batch_size} does not divide into {self.world} processes × {self.accumulate} "
                f"micro-batches; choose a multiple of {parts}"
            )
        if len(self.samples) < self.batch_size:
            raise UserError(f"{len(self.samples)} training samples are fewer than the batch size {self.batch_size}")

    @property
    def epoch_steps(self) -> int:
        return len(self.samples) // self.batch_size

    def share(self, micro: int) -> tuple[int, Tensor]:
        """The epoch of a micro-batch, and this rank's samples in it."""
        step, part = divmod(micro, self.accumulate)
        epoch, place = divmod(step, self.epoch_steps)
        if epoch not in self._epochs:
            self._epochs.clear()
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epochs[epoch] = self.samples[torch.randperm(len(self.samples), generator=generator)]
        local = self.batch_size // (self.accumulate * self.world)
        start = place * self.batch_size + (part * self.world + self.rank) * local
        return epoch, self._epochs[epoch][start : start + local]


class Portable:
    """A data set with a registry, which holds modules: a worker finds its own."""

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "registry": self.__dict__["registry"].domain}

    def __setstate__(self, state: dict[str, object]) -> None:
        from unlabeled import plugins

        domain = state["registry"]
        state["registry"] = plugins.load(domain) if isinstance(domain, str) else plugins.core()
        self.__dict__.update(state)


@dataclass(frozen=True)
class Batches(Portable, Dataset[Step]):
    """Micro-batch n of a run, read and viewed."""

    reader: Reader
    view: View
    kinds: Mapping[Kind, int]
    order: Order
    registry: Registry
    on_device: bool  # the batch stage of views is left to `finish`, on the device
    transform: bool = False  # views are transformed in a way that terms are told

    def __getitem__(self, micro: int) -> Step:
        epoch, indices = self.order.share(micro)
        keys = sample_keys(self.order.seed, epoch, indices)
        step = read_views(self.reader, self.view, self.kinds, indices, keys, self.order.samples, self.registry)
        once = sample_keys(self.order.seed, micro // self.order.accumulate, torch.tensor([-1]))  # of no sample
        B = len(step.samples)
        step.shared = {kind: view_keys(once, kind, count).repeat_interleave(B) for kind, count in self.kinds.items()}
        return step if self.on_device else finish(step, self.view, self.transform)


def view_keys(keys: Tensor, kind: Kind, count: int) -> Tensor:
    """Keys [count × B] of the views of a kind: a stream of their own for each sample and view."""
    return torch.cat([Draws(keys).fork(kind).fork(number).keys for number in range(count)])


def read_views(
    reader: Reader,
    view: View,
    kinds: Mapping[Kind, int],
    indices: Tensor,
    keys: Tensor,
    pool: Tensor,
    registry: Registry,
) -> Step:
    """Read samples once and make their views up to the sample stage; broken ones give way to a neighbour in pool."""
    whole = None
    one_by_one = type(view).sample is not View.sample
    if not one_by_one:
        whole = try_batch(reader, indices)
    broken: list[Broken] = []
    samples: list[Sample] = []
    if whole is None:
        numbers, samples = _read_each(reader, indices, pool, broken)
        indices = torch.tensor(numbers)
    views: dict[Kind, Batch] = {}
    all_keys: dict[Kind, Tensor] = {}
    for kind, count in kinds.items():
        all_keys[kind] = view_keys(keys, kind, count)
        if whole is not None:
            again = whole if count == 1 else reader.batch(indices.repeat(count).tolist())
            assert again is not None
            views[kind] = again
            continue
        made = samples * count
        if one_by_one:
            made = [
                view.sample(sample, kind, one) for sample, one in zip(made, Draws(all_keys[kind]).each(), strict=True)
            ]
        views[kind] = collate(made, registry)
    return Step(views, all_keys, indices, broken)


def finish(step: Step, view: View, transform: bool = False) -> Step:
    """The batch stage of the views, and a random one of the view's known transforms on top of it."""
    views = {
        kind: view.batch(batch, kind, Draws(step.keys[kind], step.shared.get(kind)).fork("batch"))
        for kind, batch in step.views.items()
    }
    which: dict[Kind, Tensor] = {}
    if transform:
        draws = {kind: Draws(keys).fork("transform") for kind, keys in step.keys.items()}
        which = {kind: chance.integers(0, view.transforms, 1)[:, 0] for kind, chance in draws.items()}
        views = {kind: view.transform(batch, which[kind]) for kind, batch in views.items()}
    return replace(step, views=views, transforms=which)


def try_batch(reader: Reader, indices: Tensor) -> Batch | None:
    """Samples read at once, or None where the reader cannot or one of them is broken."""
    try:
        return reader.batch(indices.tolist())
    except Exception:  # one of them is broken: read them one by one and find out which
        return None


def _read_each(reader: Reader, indices: Tensor, pool: Tensor, broken: list[Broken]) -> tuple[list[int], list[Sample]]:
    """Numbers and samples, one by one; a neighbour's in place of a broken one's."""
    pairs = [_read(reader, index, pool, broken) for index in indices.tolist()]
    return [number for number, _ in pairs], [sample for _, sample in pairs]


def _read(reader: Reader, index: int, pool: Tensor, broken: list[Broken]) -> tuple[int, Sample]:
    for further in range(TRIES):
        other = index if further == 0 else int(pool[(int(torch.searchsorted(pool, index)) + further) % len(pool)])
        try:
            return other, reader[other]
        except Exception as error:  # whatever a decoder raises for a damaged file
            broken.append(Broken.of(reader, other, error))
    last = broken[-1]
    raise UserError(f"{TRIES} samples in a row cannot be read, the last is {last.name} ({last.reason}); see `inspect`")


class _Span(Sequence[int]):
    """range(start, stop) as a sampler; a list of a billion steps would not fit."""

    def __init__(self, start: int, stop: int):
        self._range = range(start, stop)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        return self._range[at]

    def __iter__(self) -> Iterator[int]:
        return iter(self._range)


def loader(batches: Dataset[Item], start: int, stop: int, workers: int, pin: bool) -> DataLoader[Item]:
    """Items (micro-batches, mostly) start … stop in order, fetched ahead by worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=_Span(start, stop),
        num_workers=workers,
        pin_memory=pin,
        collate_fn=_same,
        generator=torch.Generator(),  # else starting a loader would draw from torch's own, which dropout uses
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals_to_the_run if workers else None,
    )


def _leave_signals_to_the_run(worker: int) -> None:
    """Terminals and schedulers signal every process; the run still needs its workers to finish the step and save.

    They leave when the loader closes; asked to end by SIGTERM they do so ten seconds later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(10))


def close(batches: Iterator[Step]) -> None:
    """End a loader's worker processes now, also where an error's traceback still holds on to the iterator."""
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        batches._shutdown_workers()  # type: ignore[no-untyped-call]


def _same(step: Any) -> Any:
    return step


def held_out(reader: Reader, wanted: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sample numbers to train on, and a fixed few to look at for health: held out, at most a tenth, of 80 up.

    Of samples that stand together none can be held out, and a tenth of fewer than 80 would say nothing: two embeddings
    vary along one direction, whatever they are. Those looked at are among those trained on then.
    """
    samples = len(reader)
    shuffled = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    if reader.together or samples < HOLDS_OUT:
        return torch.arange(samples), shuffled[:wanted].sort().values
    count = min(wanted, samples // 10)
    return shuffled[count:].sort().values, shuffled[:count].sort().values
