"""Embeds data to a file: in parts that a stop leaves in place, by one process or several."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.contract import Encoder, Tokens, to_device
from unlabeled.data.batches import Broken, loader
from unlabeled.embedding import Wholes, instances_of, tokens_of, valid_tokens
from unlabeled.errors import UserError, choose
from unlabeled.saved import describe, encoder_files, load
from unlabeled.seen import sample_ids
from unlabeled.stored.formats import FORMATS, Size, check
from unlabeled.stored.parts import Part, Parts, What

__all__ = ["embed_to_file"]

SAMPLES = {"instances": 8192, "tokens": 512}  # of a part, about


@dataclass(frozen=True)
class Made:
    """What was written."""

    size: Size
    rate: float  # samples a second in this call; 0 where all parts were there already
    busy: float  # the share of that time in which the encoder was at work, not waiting for data

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of samples that could not be read."""
        return self.size.broken


@dataclass(frozen=True)
class Job:
    """What every process is told."""

    run: str
    data: str
    what: What
    batch_size: int
    each: int  # batches in a part
    parts: Parts
    device: str
    workers: int


def embed_to_file(
    run: str | Path,
    data: str,
    out: str | Path,
    *,
    what: What = "instances",
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    processes: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write embeddings of all samples, with their names. Stopped, the same call goes on where it was.

    Finished parts lie in `<out>.parts` until all are there. What is written depends neither on where it was stopped
    nor, but for rounding, on how many processes made it.

    Args:
        run: a run's folder, or its encoder folder.
        data: what the run's reader takes.
        out: FILE.parquet, .csv, .npz, .npy or .zarr.
        what: instances, a row a sample; or tokens, a row for each valid one, with its place.
        batch_size: samples at once; None: as many as the reader says.
        device: of the encoder; with several processes and "cuda" each has a GPU of its own, in turn.
        workers: processes that read ahead, for each one that encodes.
        processes: how many encode.
        say: is told of progress.

    Raises:
        UserError: another suffix, an encoder without tokens, not one sample that can be read, parts of another
            embedding in the way.
    """
    out = Path(out)
    choose("kind of embedding", what, dict.fromkeys(SAMPLES))
    check(out, what)
    if min(processes, (batch_size or 1)) < 1 or workers < 0:
        raise UserError("--processes and --batch-size are at least 1, and --workers at least 0")
    saved = describe(run)
    reader = saved.make_reader(data)
    size = min(batch_size or reader.embed_batch, max(1, len(reader)))
    each = max(1, SAMPLES[what] // size)
    parts = Parts(out.with_name(f"{out.name}.parts"), -(-len(reader) // (size * each)))
    names = sample_ids(reader, data, range(len(reader)))
    asked = {"encoder": _hash_of(run), "data": hashlib.blake2b(names.tobytes(), digest_size=8).hexdigest()}
    parts.open({**asked, "kind": what, "batch size": size, "number of parts": parts.count})
    job = Job(str(run), data, what, size, each, parts, str(device), workers)
    rate, busy = _make(job, processes, len(reader), say)
    made = Size.of(parts)
    if not made.rows:
        shutil.rmtree(parts.folder)
        raise UserError("not one sample could be read" + (f"; the first: {made.broken[0][1]}" if made.broken else ""))
    FORMATS[out.suffix].write(out, parts, made, what)
    shutil.rmtree(parts.folder)
    return Made(made, rate, busy)


def _hash_of(run: str | Path) -> str:
    """Of the weights and of what makes an encoder, a reader and a view of them."""
    digest = hashlib.blake2b(digest_size=8)
    for path in encoder_files(run):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _make(job: Job, processes: int, samples: int, say: Callable[[str], None]) -> tuple[float, float]:
    """Make what is missing; returns samples a second and the encoder's share of the time."""
    missing = job.parts.missing()
    if not missing:
        return 0.0, 0.0
    if len(missing) < job.parts.count:
        say(f"{job.parts.count - len(missing)} of {job.parts.count} parts are there already; going on")
    each = job.batch_size * job.each
    wanted = sum(min(each, samples - number * each) for number in missing)
    began = time.perf_counter()
    if min(processes, len(missing)) > 1:
        _spread(job, min(processes, len(missing)), say)
        return wanted / (time.perf_counter() - began), float("nan")
    work, busy = Work(job), 0.0
    began = time.perf_counter()  # what is loaded once does not count
    for done, seconds in enumerate(work.make(missing), 1):
        busy += seconds
        passed = time.perf_counter() - began
        say(f"part {done} of {len(missing)}, {wanted * done / len(missing) / passed:,.0f} samples/s")
    return wanted / passed, busy / passed


def _spread(job: Job, processes: int, say: Callable[[str], None]) -> None:
    """Each process makes every so-manieth of the missing parts."""
    from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

    context = start_processes(_one_of, (job, job.parts.missing(), processes), processes, join=False)
    last = -1
    try:
        while not context.join(timeout=1.0):
            there = job.parts.count - len(job.parts.missing())
            if there != last:
                say(f"{there} of {job.parts.count} parts")
                last = there
    except ProcessRaisedException as error:
        last_line = error.args[0].strip().splitlines()[-1]
        raise UserError(f"a process failed: {last_line.removeprefix('unlabeled.errors.UserError: ')}") from None


def _one_of(rank: int, job: Job, missing: list[int], processes: int) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    if job.device == "cuda":
        job = replace(job, device=f"cuda:{rank % torch.cuda.device_count()}")
    for _ in Work(job).make(missing[rank::processes]):
        pass


class Work:
    """What one process makes parts with."""

    def __init__(self, job: Job):
        saved = describe(job.run)
        self.job, self.device = job, torch.device(job.device)
        self.reader, self.view, self.registry = saved.make_reader(job.data), saved.make_view(), saved.registry
        self.encoder = load(job.run).to(self.device)

    def make(self, numbers: Sequence[int]) -> Iterator[float]:
        """Make the parts of these numbers; yields for each the seconds that the encoder was at work."""
        job, pin = self.job, self.device.type == "cuda"
        spans = [_spans(job, number, len(self.reader)) for number in numbers]
        wholes = Wholes(self.reader, self.view, self.registry, [span for part in spans for span in part])
        ahead = iter(loader(wholes, 0, len(wholes), job.workers, pin))
        for number, part in zip(numbers, spans, strict=True):
            kept: list[_Rows] = []
            broken: list[Broken] = []
            seconds = 0.0
            for _ in part:
                indices, batch, bad = next(ahead)
                broken += bad
                if batch:
                    began = time.perf_counter()
                    tokens = self.encoder.tokenize(to_device(batch, self.device))
                    kept.append(_rows(self.encoder, job.what, indices, tokens))
                    seconds += time.perf_counter() - began
            _joined(kept, broken, self.reader.name).save(job.parts.path(number))
            yield seconds


def _spans(job: Job, number: int, samples: int) -> list[Tensor]:
    """Samples of each batch of a part."""
    first = number * job.each * job.batch_size
    return list(torch.arange(first, min(samples, first + job.each * job.batch_size)).split(job.batch_size))


@dataclass(frozen=True)
class _Rows:
    """Of one batch, on the CPU."""

    indices: Tensor  # [n]
    values: Tensor  # [rows, D]
    counts: Tensor  # [n]
    coords: Tensor  # [rows, P]


@torch.no_grad()
def _rows(encoder: Encoder, what: What, indices: Tensor, tokens: Tokens) -> _Rows:
    if what == "instances":
        values = instances_of(encoder, tokens).cpu()
        counts, coords = torch.ones(len(values), dtype=torch.int64), torch.zeros(len(values), 0)
    else:
        order, counts = valid_tokens(tokens)
        each = (tokens_of(encoder, tokens), tokens.coords)
        values, coords = (x.flatten(0, 1)[order].cpu() for x in each)
        counts = counts.cpu()
    if len(counts) != len(indices):
        raise UserError(
            f"{type(encoder).__name__} gives {what} of {len(counts)} things for {len(indices)} samples, so that a row "
            "cannot be named; use the domain's own command"
        )
    return _Rows(indices, values, counts, coords)


def _joined(kept: list[_Rows], broken: list[Broken], name: Callable[[int], str]) -> Part:
    def together(field: str, empty: Tensor) -> Any:
        return torch.cat([getattr(rows, field) for rows in kept] or [empty]).numpy()

    none = torch.zeros(0, dtype=torch.int64)
    indices = together("indices", none)
    return Part(
        [name(index) for index in indices.tolist()],
        indices,
        together("values", torch.zeros(0, 0)),
        together("counts", none),
        together("coords", torch.zeros(0, 0)),
        [(one.name, one.reason) for one in broken],
    )
