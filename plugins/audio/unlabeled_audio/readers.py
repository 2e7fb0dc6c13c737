"""Reads clips: files, the parts that a manifest names, or the segments of long files, each found by seeking."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Facts, Reader, Sample
from unlabeled.data.names import fields_of, label_values, parse_names
from unlabeled.errors import BrokenItem, UserError, nearest
from unlabeled_audio.batches import collate
from unlabeled_audio.decoding import Info, decode, probe, resample
from unlabeled_audio.events import Events
from unlabeled_audio.features import Mel, features, settings
from unlabeled_audio.sources import find

FITTED, FITTED_SECONDS = 256, 600.0  # clips and their sound, at most, that the statistics are taken of
EMBEDDED = 120.0  # seconds of sound, padding included, that encoders see at once outside training
LOOKED_AT = 200  # clips that notices are taken of
CLIPPED = 0.999  # an amplitude that says "clipped" where several samples in a row have it
SILENT = -60.0  # dB of full scale


class AudioReader(Reader):
    """Clips as {"wave": [S] float32 in −1 … 1, "length": [] = S}, at one rate, of one channel.

    Args:
        source: a file, a folder, a glob, several of these with commas between, or a manifest (.csv, .jsonl, .tsv).
        facts: a trained encoder's; rate and features are its.
        sample_rate: Hz that all clips are resampled to; none: the commonest in the data.
        channel: of files with several, counted from 0; none: their mean.
        segment: seconds; longer files are cut into samples of this length.
        pattern: what file names say: '{digit}_{speaker}_*' gives the labels digit and speaker.
        silence: dB of full scale (−60, say); samples that stay below are left out, which takes a pass over the data.
        mels: bands of the log-mel spectrogram.
        hop: milliseconds from one frame to the next.
        window: milliseconds of a frame.
        low: Hz, where the bands begin.
        high: Hz, where they end; none: 7800, or 0.4875 of the rate where that is less (ATST, arXiv 2204.12076).

    Raises:
        UserError: there are no clips, not one can be read, or settings contradict each other.
    """

    def __init__(
        self,
        source: str,
        *,
        facts: Facts | None = None,
        sample_rate: int | None = None,
        channel: int | None = None,
        segment: float = 30.0,
        pattern: str | None = None,
        silence: float | None = None,
        mels: int = 64,
        hop: float = 10.0,
        window: float = 64.0,
        low: float = 60.0,
        high: float | None = None,
    ):
        if segment <= 0:
            raise UserError(f"segment is a length in seconds, not {segment:g}")
        if channel is not None and channel < 0:
            raise UserError(f"channels count from 0, so there is no channel {channel}")
        self.source, self.channel, self.pattern = str(source), channel, pattern
        self.clips = find(self.source)
        self.infos = [_probed(path) for path in self.clips.paths]
        good = [info for info in self.infos if isinstance(info, Info)]
        if not good:
            count, first = len(self.infos), self.clips.names[0]
            raise UserError(f"not one of {count} files can be read; the first, {first}: {self.infos[0]}")
        self._cut(segment)
        self.left_out = 0
        if facts is not None:
            self.facts, self.mel = facts, Mel.of(facts)
        else:
            rate = sample_rate or Counter(info.rate for info in good).most_common(1)[0][0]
            high = min(7800.0, 0.4875 * rate) if high is None else high
            step, width = (max(1, round(ms * rate / 1000)) for ms in (hop, window))
            self.mel = Mel(rate, mels, step, width, low, high)
            self.mel.check()
        if silence is not None:
            self._leave_out(silence)
        if facts is None:
            self.mel = Mel(**{**self.mel.data(), **self._statistics()})
            self.facts = {"version": 1, "mel": self.mel.data(), "seconds": self._typical()}
        self.embed_batch = max(1, min(512, int(EMBEDDED / max(float(self._seconds().max()), 1e-3))))
        self._raw: NDArray[np.float32] | None = None
        self._events: dict[str, Events] = {}  # by where they are

    def _cut(self, segment: float) -> None:
        """Samples as rows (file, first frame, frames); a file that cannot be read is one sample, and raises there."""
        rows: list[tuple[int, int, int]] = []
        for number, info in enumerate(self.infos):
            if isinstance(info, str):
                rows.append((number, 0, 0))
                continue
            first, last = self._part(number, info)
            step = max(1, round(segment * info.rate))
            rows += [(number, start, min(step, last - start)) for start in range(first, last, step)] or [(number, 0, 0)]
        self.rows = np.array(rows, dtype=np.int64)
        counts = np.bincount(self.rows[:, 0], minlength=len(self.infos))
        self.alone = counts == 1  # the file is one sample

    def _part(self, number: int, info: Info) -> tuple[int, int]:
        """First and last frame of what a manifest's row means."""
        start, stop = self.clips.parts[number] if self.clips.parts else (0.0, None)
        return round(start * info.rate), info.frames if stop is None else min(info.frames, round(stop * info.rate))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sample {index}; there are {len(self)}")
        number, start, count = self.rows[index].tolist()
        info = self.infos[number]
        if isinstance(info, str):
            raise BrokenItem(info)
        if count == 0:
            raise BrokenItem("the part that the manifest names lies after the end of the file")
        wave = torch.from_numpy(decode(self.clips.paths[number], start, count, self.channel))
        wave = resample(wave, info.rate, self.mel.rate)
        return {"wave": wave, "length": torch.tensor(len(wave))}

    def name(self, index: int) -> str:
        number, start, _ = self.rows[index].tolist()
        info, name = self.infos[number], str(self.clips.names[number])
        if self.alone[number] or isinstance(info, str):
            return name
        return f"{name} @ {start / info.rate:g} s"

    def span(self, index: int) -> tuple[float, float]:
        """Seconds of a sample in its file."""
        number, start, count = self.rows[index].tolist()
        info = self.infos[number]
        return (0.0, 0.0) if isinstance(info, str) else (start / info.rate, (start + count) / info.rate)

    def labels(self, spec: str) -> NDArray[Any]:
        """A manifest's column, a field of the pattern, `folder`, or the field of a pattern that `spec` itself is."""
        table = dict(self.clips.columns)
        table.setdefault("folder", [PurePath(path).parent.name for path in self.clips.paths])
        if "{" in spec:
            wanted = fields_of(spec)
            if len(wanted) != 1:
                raise UserError(f"label {spec!r} must have one field in braces, as in '*_{{speaker}}_*'")
            table[spec] = parse_names(spec, self.clips.paths)[wanted[0]]
        elif self.pattern:
            table |= parse_names(self.pattern, self.clips.paths)
        if spec not in table:
            raise UserError(
                f"{self.source} has no label {spec!r}; {nearest(spec, table)}, or give a pattern of the file names, as "
                "in '{digit}_*'"
            )
        return label_values(table[spec])[self.rows[:, 0]]

    def labels_at(self, spec: str, index: int, places: NDArray[Any]) -> NDArray[np.str_] | None:
        """Classes of moments, of a table of events: file, start, end, label; "none" where there is no event."""
        if spec not in self._events:
            self._events[spec] = Events.read(Path(spec))
        start, end = self.span(index)
        seconds = start + (places[:, 0].astype(np.float64) if len(places) else np.empty(0)) * (end - start)
        return self._events[spec].at(self.clips.names[int(self.rows[index, 0])], seconds)

    def raw(self) -> NDArray[np.float32]:
        """[n, F] mean log-mel of each sample; zeros where it cannot be read."""
        if self._raw is None:
            out = np.zeros((len(self), self.mel.mels), np.float32)
            for rows, mel, frames in self.spectrograms(range(len(self))):
                out[rows] = (mel.sum(2) / frames[:, None]).numpy()
            self._raw = out
        return self._raw

    def pictures(self, batch: Batch) -> list[Tensor]:
        """Log-mels, low bands below; from three deviations below the mean to three above."""
        mel, frames = features(batch, self.mel)
        pairs = zip(mel, frames.tolist(), strict=True)
        return [((one[:, :count].flip(0) + 3) / 6).clamp(0, 1) for one, count in pairs]

    def spectrograms(self, indices: Sequence[int], most: int = 64) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Numbers of readable samples, their log-mels [B, F, T] and frames [B], in small batches of like length."""
        ordered = sorted(indices, key=lambda index: (int(self.rows[index, 2]), index))
        for at in range(0, len(ordered), most):
            good = [(index, sample) for index in ordered[at : at + most] if (sample := self.or_none(index))]
            if good:
                yield [index for index, _ in good], *features(collate([sample for _, sample in good]), self.mel)

    def _statistics(self) -> dict[str, float]:
        """Mean and deviation of log powers over some clips."""
        count, total, squares = 0, 0.0, 0.0
        most = min(FITTED, max(8, int(FITTED_SECONDS / self._typical())))
        for _, mel, frames in self.spectrograms(self.some(most)):
            valid = (torch.arange(mel.shape[2]) < frames[:, None])[:, None].expand_as(mel)
            chosen = mel[valid].double()
            count, total = count + len(chosen), total + float(chosen.sum())
            squares += float(chosen.square().sum())
        if not count:
            raise UserError(f"not one sample of {self.source} can be read: `unlabeled audio inspect` says why")
        mean = total / count
        deviation = math.sqrt(max(squares / count - mean**2, 0.0))
        return {"mean": round(mean, 6), "std": round(deviation, 6) if deviation > 1e-3 else 1.0}

    def _leave_out(self, level: float) -> None:
        """Drop samples that are silent throughout; broken ones stay, to be told of."""
        samples = map(self.or_none, range(len(self)))
        loud = [sample is None or _level(sample["wave"]) >= level for sample in samples]
        self.left_out = loud.count(False)
        if self.left_out == len(self):
            raise UserError(f"every sample of {self.source} is below {level:g} dB: lower --silence")
        self.rows = self.rows[np.array(loud)]

    def _seconds(self) -> NDArray[np.float64]:
        """[n] length of each sample, 0 where it cannot be read."""
        rates = np.array([info.rate if isinstance(info, Info) else 1 for info in self.infos])
        seconds: NDArray[np.float64] = self.rows[:, 2] / rates[self.rows[:, 0]]
        return seconds

    def _typical(self) -> float:
        """Median length in seconds of the samples that can be read."""
        seconds = self._seconds()
        return max(1e-3, round(float(np.median(seconds[seconds > 0])), 3))

    def summary(self) -> list[dict[str, str]]:
        """A row for every kind of file."""
        kinds: dict[tuple[str, int, int], list[float]] = {}
        for info in self.infos:
            if isinstance(info, Info):
                kinds.setdefault((info.form, info.rate, info.channels), []).append(info.frames / info.rate)
        return [
            {
                "format": form,
                "rate": f"{rate:,} Hz",
                "channels": str(channels),
                "files": f"{len(seconds):,}",
                "seconds": f"{min(seconds):.2f} … {np.median(seconds):.2f} … {max(seconds):.2f}",
                "hours": f"{sum(seconds) / 3600:.2f}",
            }
            for (form, rate, channels), seconds in sorted(kinds.items())
        ]

    @property
    def notices(self) -> list[str]:
        """What `inspect` says besides: features, what was left out, and what some of the samples sound like."""
        said = [settings(self.facts)]
        broken = sum(isinstance(info, str) for info in self.infos)
        said += [f"{broken} files cannot be read"] if broken else []
        said += [f"{self.left_out} silent samples are left out"] if self.left_out else []
        seen = [sample["wave"] for index in self.some(LOOKED_AT) if (sample := self.or_none(index))]
        for what, check in OF_SOUND.items():
            count = sum(check(wave) for wave in seen)
            said += [f"{count} of {len(seen)} samples looked at {what}"] if count else []
        return said


def _probed(path: str) -> Info | str:
    """The header, or why it cannot be read."""
    try:
        return probe(path)
    except BrokenItem as error:
        return str(error)


def _level(wave: Tensor) -> float:
    """Root mean square in dB of full scale."""
    return 10 * math.log10(float(wave.double().square().mean()) + 1e-20)


def _clips(wave: Tensor) -> bool:
    high = wave.abs() >= CLIPPED
    return bool((high[1:] & high[:-1]).any())


OF_SOUND = {
    "are constant (no sound, or a direct current)": lambda wave: bool((wave == wave[0]).all()),
    f"stay below {SILENT:g} dB": lambda wave: bool((wave != wave[0]).any()) and _level(wave) < SILENT,
    "are clipped": _clips,
}
