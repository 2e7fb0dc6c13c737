"""Our losses beside lightly's: time and peak memory of value and gradient, as ratios within one run.

The two run in alternation in one process, on the same inputs. Memory on a CPU is the peak of the resident set above
what there was before, on a GPU that of allocated memory. Also NT-Xent at N = 32768, and the moving average of a
teacher beside the step of its student. Writes docs/results/term_speed.md.

    pip install "unlabeled[bench]"
    python benchmarks/term_speed.py [--device cuda] [--seconds 2] [--out docs/results/term_speed.md]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if os.environ.get("MALLOC_MMAP_THRESHOLD_") is None:  # read once, when a process starts: freed tensors shall leave it
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Teacher, follow
from unlabeled.cli.tables import markdown
from unlabeled.layers import Trunk
from unlabeled.sinkhorn import sinkhorn
from unlabeled.terms.barlow import redundancy
from unlabeled.terms.base import distillation, variance_covariance
from unlabeled.terms.contrast import nt_xent
from unlabeled.terms.koleo import koleo
from unlabeled.terms.sigreg import directions, sigreg

Loss = Callable[[Tensor, Tensor], Tensor]
MOST = 8e9  # bytes: larger comparisons are left out, and said
LONG = {"cpu": 5e11, "cuda": 1e15}  # operations of one step; likewise


@dataclass(frozen=True)
class Pair:
    """One loss twice, of two views [N, D], and what it keeps at most: a square of rows or of columns."""

    name: str
    ours: Loss
    theirs: Loss
    square: str

    def cost(self, rows: int, width: int) -> tuple[float, float]:
        """Bytes and operations of a step that keeps everything, roughly."""
        side, other = (2.0 * rows, width) if self.square == "rows" else (float(width), rows)
        return 4 * (5 * side * side + 12.0 * rows * width), 6 * side * side * other


def pairs(rows: int, width: int, device: torch.device) -> Iterator[Pair]:
    """Every loss that both have."""
    from lightly import loss as lightly

    yield Pair("NT-Xent", lambda a, b: nt_xent(torch.stack([a, b]), 0.1), lightly.NTXentLoss(0.1), "rows")
    yield Pair("Barlow Twins", lambda a, b: sum(redundancy(a, b, 5e-3)), lightly.BarlowTwinsLoss(), "columns")  # type: ignore[arg-type, return-value]
    yield Pair("VICReg", _vicreg, lightly.VICRegLoss(), "columns")
    dino = lightly.DINOLoss(width, warmup_teacher_temp=0.04, teacher_temp=0.04).to(device)
    centre = torch.zeros(width, device=device)
    yield Pair("DINO", lambda a, b: _dino(a, b, centre), lambda a, b: dino([b.detach(), a.detach()], [b, a]), "neither")
    theirs = lightly.KoLeoLoss()
    swav = lightly.SwaVLoss().to(device)
    yield Pair("SwAV (K = D)", _swav, lambda a, b: swav([F.normalize(a, dim=1), F.normalize(b, dim=1)], []), "neither")
    yield Pair("KoLeo", lambda a, b: koleo(a) + koleo(b), lambda a, b: theirs(a) + theirs(b), "rows")
    gauss = lightly.SIGReg(num_vectors=256).to(device)
    chosen = directions(width, 256, 0, device)
    yield Pair(
        "SIGReg, 256 slices",
        lambda a, b: sigreg(a, chosen) + sigreg(b, chosen),
        lambda a, b: gauss(a) + gauss(b),
        "neither",
    )


def _swav(a: Tensor, b: Tensor) -> Tensor:
    scores = [F.normalize(a, dim=1), F.normalize(b, dim=1)]
    return distillation(scores, [sinkhorn(view, 0.05) for view in scores], 0.1)


def _vicreg(a: Tensor, b: Tensor) -> Tensor:
    agree = F.mse_loss(a, b)  # first, as in the term: what is made first is freed last
    (hinge, cov), (other_hinge, other_cov) = variance_covariance(a), variance_covariance(b)
    return 25 * agree + 25 * (hinge + other_hinge) / 2 + cov + other_cov


def _dino(a: Tensor, b: Tensor, centre: Tensor) -> Tensor:
    with torch.no_grad():
        whole = [((view.detach() - centre) / 0.04).softmax(-1) for view in (a, b)]
        centre.lerp_(torch.stack([a.mean(0), b.mean(0)]).mean(0), 0.1)
    return distillation([a, b], whole, 0.1)


class Watch:
    """Peak memory above what there was, of one call."""

    def __init__(self, device: torch.device):
        self.device = device

    def peak(self, call: Callable[[], None]) -> float:
        """Bytes."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            return float(torch.cuda.max_memory_allocated() - before)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident set starts anew
        before = _status("VmRSS")
        call()
        return float(_status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def once(loss: Loss, a: Tensor, b: Tensor) -> None:
    """Value and gradient."""
    a.grad = b.grad = None
    loss(a, b).backward()
    if a.is_cuda:
        torch.cuda.synchronize()


def seconds(call: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(pair: Pair, rows: int, width: int, device: torch.device, least: float) -> dict[str, str]:
    """A line of the table."""
    size, work = pair.cost(rows, width)
    line = {"loss": pair.name, "N": str(rows), "D": str(width)}
    if size > MOST or work > LONG[device.type]:
        return {
            **line,
            "ours": "",
            "lightly": "",
            "time": f"left out: {size / 1e9:.0f} GB, {work / 1e12:.1f} Tflop",
            "memory": "",
        }
    chance = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, width, generator=chance).to(device).requires_grad_() for _ in range(2))
    for loss in (pair.ours, pair.theirs):
        once(loss, a, b)
    times: tuple[list[float], list[float]] = ([], [])
    while sum(times[0]) + sum(times[1]) < least or len(times[0]) < 3:
        for loss, kept in zip((pair.ours, pair.theirs), times, strict=True):
            kept.append(seconds(lambda loss=loss: once(loss, a, b)))  # type: ignore[misc]
    mine, other = (statistics.median(kept) for kept in times)
    watch = Watch(device)
    peaks = [watch.peak(lambda loss=loss: once(loss, a, b)) for loss in (pair.ours, pair.theirs)]  # type: ignore[misc]
    memory = f"{peaks[0] / peaks[1]:.2f}" if peaks[1] > 4e6 else "under 4 MB"
    return {
        **line,
        "ours": f"{mine * 1e3:.2f} ms, {peaks[0] / 1e6:.0f} MB",
        "lightly": f"{other * 1e3:.2f} ms, {peaks[1] / 1e6:.0f} MB",
        "time": f"{mine / other:.2f}",
        "memory": memory,
    }


def large(device: torch.device) -> str:
    """NT-Xent at N = 32768, D = 128."""
    a, b = (torch.randn(32768, 128, device=device).requires_grad_() for _ in range(2))
    contrast: Loss = lambda one, two: nt_xent(torch.stack([one, two]), 0.1)  # noqa: E731
    took: list[float] = []
    peak = Watch(device).peak(lambda: took.append(seconds(lambda: once(contrast, a, b))))
    return f"NT-Xent at N = 32768, D = 128: {peak / 1e6:.0f} MB at the peak, {took[0]:.1f} s for value and gradient."


def average(device: torch.device) -> str:
    """The moving average of a teacher with 100 M parameters beside a step of a ViT-B that sees 196 tokens."""
    vit = nn.Module()
    trunk = Trunk(768, 12, 12)  # 85 M, and for the count's sake 15 M more
    vit.trunk, vit.rest = trunk, nn.Linear(768, 19_000)
    vit.to(device)
    teacher = Teacher(vit)
    x, keep = torch.randn(32, 196, 768, device=device), torch.ones(32, 196, dtype=torch.bool, device=device)

    def step() -> None:
        vit.zero_grad()
        trunk(x, keep)[0].square().mean().backward()
        torch.cuda.synchronize() if device.type == "cuda" else None

    def move() -> None:
        follow([(teacher, vit)], 0.99)
        torch.cuda.synchronize() if device.type == "cuda" else None

    step()
    move()
    steps, moves = (
        statistics.median(seconds(step) for _ in range(3)),
        statistics.median(seconds(move) for _ in range(9)),
    )
    count = sum(p.numel() for p in vit.parameters()) / 1e6
    return (
        f"Moving average of {count:.0f} M parameters: {moves * 1e3:.1f} ms; forward and backward of a ViT-B on 32 × "
        f"196 tokens, float32: {steps * 1e3:.0f} ms; {moves / steps:.2%}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="256,1024,4096,16384")
    parser.add_argument("--widths", default="128,512,2048")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="docs/results/term_speed.md")
    flags = parser.parse_args()
    device = torch.device(flags.device)
    lines = []
    for rows in map(int, flags.rows.split(",")):
        for width in map(int, flags.widths.split(",")):
            for pair in pairs(rows, width, device):
                lines.append(compare(pair, rows, width, device, flags.seconds))
                print(*lines[-1].values(), sep="  ", flush=True)
    extra = [large(device), average(device)]
    print(*extra, sep="\n")
    from importlib.metadata import version

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    Path(flags.out).write_text(
        "# Speed of terms\n\n"
        f"Value and gradient beside lightly {version('lightly')}, {name}, torch {torch.__version__}; medians of calls "
        "in\nalternation, peaks of memory above the inputs; time and memory are ours divided by theirs.\n\n"
        f"{markdown(lines)}\n" + "\n".join(f"- {text}" for text in extra) + "\n\n"
        f"Made by `python benchmarks/term_speed.py --device {flags.device} --rows {flags.rows} "
        f"--widths {flags.widths}`.\n"
    )


if __name__ == "__main__":
    main()
