"""Clips a second from files to two views of log-mels, against a plain torchaudio loop; and one segment of a long file.

    python benchmarks/audio_speed.py ../shared/data/audio/fsdd/recordings [--long 2]

The plain loop is a Dataset that decodes with soundfile, as torchaudio has no decoder of its own any more, cuts two
random segments, makes torchaudio's MelSpectrogram of each, a random resized crop and a stack padded to the longest.
Both decode the same files in two worker processes, in batches of 64, for as many epochs, which share their workers.
Processor time is of all processes, so that a busy machine counts less.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unlabeled import plugins
from unlabeled.data.batches import Batches, Order, finish, loader
from unlabeled_audio.features import Mel
from unlabeled_audio.readers import AudioReader

BATCH, WORKERS, EPOCHS = 64, 2, 3
torch.set_num_threads(1)


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """Two views of a clip, made one by one."""

    def __init__(self, paths: list[str], mel: Mel):
        from torchaudio.transforms import MelSpectrogram

        self.paths, self.mel = paths, mel
        self.spectrum = MelSpectrogram(mel.rate, 512, mel.window, mel.hop, mel.low, mel.high, n_mels=mel.mels)

    def __len__(self) -> int:
        return len(self.paths)

    def view(self, wave: Tensor) -> Tensor:
        count = int(len(wave) * (0.6 + 0.4 * torch.rand(())))
        start = int(torch.rand(()) * (len(wave) - count + 1))
        gain = 10 ** ((torch.rand(()) * 12 - 6) / 20)
        part = torch.nn.functional.pad(gain * wave[start : start + count], (0, max(0, 512 - count)))
        mel = ((self.spectrum(part) + 1e-6).log() - self.mel.mean) / self.mel.std
        bands, frames = mel.shape
        height, width = int(bands * (0.6 + 0.4 * torch.rand(()))), max(2, int(frames * (0.6 + 0.4 * torch.rand(()))))
        low, left = (int(torch.rand(()) * (most + 1)) for most in (bands - height, frames - width))
        box = mel[None, None, low : low + height, left : left + width]
        return torch.nn.functional.interpolate(box, (bands, frames), mode="bilinear")[0, 0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        wave = torch.from_numpy(sf.read(self.paths[index], dtype="float32")[0])
        return self.view(wave), self.view(wave)


def stack(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[2 B, F, T] padded to the longest."""
    mels = [mel for pair in pairs for mel in pair]
    out = torch.zeros(len(mels), mels[0].shape[0], max(mel.shape[1] for mel in mels))
    for row, mel in enumerate(mels):
        out[row, :, : mel.shape[1]] = mel
    return out


def plain(reader: AudioReader) -> None:
    """Epochs of the plain loop."""
    data = Plain(list(reader.clips.paths), reader.mel)
    how = {"shuffle": True, "collate_fn": stack, "drop_last": True}
    batches = DataLoader(data, BATCH, num_workers=WORKERS, persistent_workers=True, **how)  # type: ignore[arg-type]
    for _ in range(EPOCHS):
        for mels in batches:
            assert mels.shape[0] == 2 * BATCH


def ours(reader: AudioReader) -> None:
    """Epochs as a run makes them: segments in the workers, log-mels and crops batched where the encoder is."""
    registry = plugins.load("audio")
    view = registry.make("view", "resized_crops", reader.facts, frames=(0.6, 1.0))
    order = Order(torch.arange(len(reader)), BATCH, 0)
    batches = Batches(reader, view, {"global": 2}, order, registry, True)
    for step in loader(batches, 0, EPOCHS * order.epoch_steps, WORKERS, False):
        assert finish(step, view).views["global"]["logmel"].shape[0] == 2 * BATCH


def timed(epochs: Callable[[AudioReader], None], reader: AudioReader) -> tuple[float, float]:
    """Seconds on the clock, and of all processors."""

    def spent() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in both)

    before, start = spent(), time.perf_counter()
    epochs(reader)
    return time.perf_counter() - start, spent() - before


def segments(suffix: str, hours: float) -> None:
    """Random 10 s segments of one long file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"long.{suffix}"
        chance, rate = np.random.default_rng(0), 16000
        with sf.SoundFile(path, "w", rate, 1) as file:
            for _ in range(round(hours * 60)):
                file.write((0.1 * chance.standard_normal(60 * rate)).clip(-1, 1).astype(np.float32))
        start = time.perf_counter()
        reader = AudioReader(str(path), segment=10.0, sample_rate=rate)
        opened = time.perf_counter() - start
        took = []
        for index in chance.integers(0, len(reader), 100):
            start = time.perf_counter()
            reader[int(index)]
            took.append(1000 * (time.perf_counter() - start))
        print(
            f"{hours:g} h {suffix}: a random 10 s segment takes {statistics.median(took):.1f} ms (median of 100; the "
            f"slowest {max(took):.1f}); opening it and fitting statistics took {opened:.1f} s"
        )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=float, metavar="HOURS", help="time segments of files so long instead")
    flags = parser.parse_args()
    if flags.long:
        for suffix in ("flac", "mp3"):
            segments(suffix, flags.long)
        return
    reader = AudioReader(flags.data)
    clips = EPOCHS * (len(reader) // BATCH * BATCH)
    found: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    for _ in range(flags.rounds):
        found["plain"].append(timed(plain, reader))
        found["ours"].append(timed(ours, reader))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (clock, processor) in medians.items():
        print(f"{name}: {clips / clock:,.0f} clips a second on the clock, {clips / processor:,.0f} a processor second")
    ratios = [a / b for a, b in zip(medians["plain"], medians["ours"], strict=True)]
    print(f"ours is {ratios[0]:.2f} times as fast on the clock, {ratios[1]:.2f} times by processor time")


if __name__ == "__main__":
    main()
