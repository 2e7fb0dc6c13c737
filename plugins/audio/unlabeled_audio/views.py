"""Random views of clips: segments, gain, background and rooms on the wave; crops and masks on the log-mel.

A view that alters log-mels hands them on as batch["logmel"] [B, F, T]; encoders of waves do not hear that part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch, Facts, Kind, Sample, View
from unlabeled.errors import UserError, check_bounds
from unlabeled.randomness import Draws
from unlabeled_audio.features import Mel, frames_of, in_place, log_frames, log_mel
from unlabeled_audio.mixing import Pool, at_ratio, in_room
from unlabeled_audio.playback import WAYS, played

Bounds = tuple[float, float]
RANDOM: tuple[Kind, ...] = ("global", "local")


class Segments(View):
    """Random segments at a random gain, optionally with a background and in a room.

    A global view is a share of the clip, a local one a smaller share, a plain one all of it; none is longer than
    `seconds`. Two views are two segments (ATST-Clip, arXiv 2204.12076).

    Args:
        facts: of the reader.
        seconds: no view but the whole one is longer; none: 6, or twice the median clip where that is less.
        share: of a clip that is a global view.
        local: of a clip that is a local view.
        gain: dB up or down at most.
        background: clips that are mixed in, as a reader takes them; the training data themselves will do. None: none.
        snr: dB between the clip's power and the background's.
        rooms: impulse responses, as a reader takes them; none: no echo.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        seconds: float | None = None,
        share: Bounds = (0.6, 1.0),
        local: Bounds = (0.2, 0.5),
        gain: float = 6.0,
        background: str | None = None,
        snr: Bounds = (0.0, 20.0),
        rooms: str | None = None,
    ):
        self.mel, self.transforms = Mel.of(facts), WAYS
        seconds = min(6.0, 2 * facts["seconds"]) if seconds is None else seconds
        if seconds <= 0 or gain < 0:
            raise UserError(f"seconds must be above 0 and gain at least 0, not {seconds:g} and {gain:g}")
        self.most = max(1, round(seconds * self.mel.rate))
        self.shares = {
            "global": check_bounds("share", share, 0.01, 1.0),
            "local": check_bounds("local", local, 0.01, 1.0),
        }
        self.gain, self.snr = gain, check_bounds("snr", snr, -60.0, 120.0)
        self.background = Pool(background, self.mel.rate) if background else None
        self.rooms = Pool(rooms, self.mel.rate) if rooms else None

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        if kind == "whole":
            return sample
        share, place, loud = draws.numbers(3)
        wave = self._segment(sample["wave"], kind, share, place)
        if kind in RANDOM and self.rooms:
            wave = in_room(wave, self.rooms.take(draws.fork("room")))
        if kind in RANDOM and self.background:
            chance = draws.fork("background")
            noise = self.background.take(chance, len(wave) / self.mel.rate)
            wave = at_ratio(wave, noise, float(chance.uniform(1, low=self.snr[0], high=self.snr[1])))
        if kind in RANDOM:
            wave = wave * 10 ** (self.gain * (2 * loud - 1) / 20)
        return {**sample, "wave": wave, "length": torch.tensor(wave.shape[0])}

    def _segment(self, wave: Tensor, kind: Kind, share: float, place: float) -> Tensor:
        """A part as long and as far in as the numbers from 0 to 1 say."""
        low, high = self.shares.get(kind, (1.0, 1.0))
        there = wave.shape[0]
        count = min(self.most, max(1, round(there * (low + (high - low) * share))))
        start = int(place * (there - count + 1))
        return wave[start : start + count]

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        """As it is, backwards, a quarter faster and higher, or both: for methods that tell which, and for no others."""
        return played(batch, which, self.mel)


class ResizedCrops(Segments):
    """Segments whose log-mels are cropped or widened at random in time and frequency, and resized (BYOL-A, 2103.06695).

    Where the crop reaches beyond the spectrogram it finds the mean of the data, as it does in the paper.

    Args:
        facts: of the reader.
        seconds: no view but the whole one is longer; none: 6, or twice the median clip where that is less.
        share: of a clip that is a global view.
        local: of a clip that is a local view.
        gain: dB up or down at most.
        background: clips that are mixed in, as a reader takes them; the training data themselves will do. None: none.
        snr: dB between the clip's power and the background's.
        rooms: impulse responses, as a reader takes them; none: no echo.
        bands: share of the bands that a crop has.
        frames: share of the frames that a crop has; above 1 it is wider than the clip.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        seconds: float | None = None,
        share: Bounds = (0.6, 1.0),
        local: Bounds = (0.2, 0.5),
        gain: float = 6.0,
        background: str | None = None,
        snr: Bounds = (0.0, 20.0),
        rooms: str | None = None,
        bands: Bounds = (0.6, 1.0),
        frames: Bounds = (0.6, 1.5),
    ):
        super().__init__(
            facts, seconds=seconds, share=share, local=local, gain=gain, background=background, snr=snr, rooms=rooms
        )
        self.bands, self.frames = check_bounds("bands", bands, 0.05, 1.0), check_bounds("frames", frames, 0.05, 4.0)

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind not in RANDOM:
            return batch
        count = frames_of(batch["length"], self.mel)
        height = draws.uniform(1, low=self.bands[0], high=self.bands[1])[:, 0]
        width = draws.uniform(1, low=self.frames[0], high=self.frames[1])[:, 0]
        low, start = draws.uniform(2).unbind(1)
        logs, place = log_frames(batch["wave"], batch["length"], self.mel)
        made = resized(logs, place, count, height, width, low * (1 - height), start * (1 - width))
        return {**batch, "logmel": in_place(made, place, (len(count), frames_of(batch["wave"].shape[1], self.mel)))}


def resized(
    logs: Tensor, place: Tensor, count: Tensor, height: Tensor, width: Tensor, low: Tensor, start: Tensor
) -> Tensor:
    """Boxes of log-mels resized to their clips: shares of bands and of each clip's `count` [B] frames.

    Frames come and go as `log_frames` has them: logs [N, F] of the rows and frames in place [N, 2]. A box has `height`
    from `low` on and `width` from `start` on, all [B] (width above 1 and start below 0 reach beyond the clip); linear
    interpolation, zero outside.
    """
    bands = logs.shape[1]
    up = low[:, None] * bands + height[:, None] * (torch.arange(bands, device=logs.device) + 0.5) - 0.5  # [B, F]
    (first, then), (less, more) = (x.unbind(-1) for x in _beside(up, bands))
    row, frame = place.unbind(1)
    many, begin = count[row], (count.cumsum(0) - count)[row]  # frames of the clip, and the number of its first
    at, share = _beside(start[row] * many + width[row] * (frame + 0.5) - 0.5, many[:, None])
    made = F.embedding_bag(begin[:, None] + at, logs, mode="sum", per_sample_weights=share)  # [N, F]
    return made.gather(1, first[row]) * less[row] + made.gather(1, then[row]) * more[row]


def _beside(place: Tensor, size: int | Tensor) -> tuple[Tensor, Tensor]:
    """The two whole places [..., 2] beside fractional ones from 0 to size − 1, and their shares, none of one beyond."""
    last = torch.as_tensor(size, device=place.device) - 1
    first = place.floor()
    both = torch.stack([first, first + 1], -1)
    share = torch.stack([first + 1 - place, place - first], -1)
    return both.long().clamp(min=0).minimum(last), share.masked_fill((both < 0) | (both > last), 0.0)


class SpecAugment(Segments):
    """Segments whose log-mels lack random bands and frames, which show the mean (SpecAugment, arXiv 1904.08779).

    Args:
        facts: of the reader.
        seconds: no view but the whole one is longer; none: 6, or twice the median clip where that is less.
        share: of a clip that is a global view.
        local: of a clip that is a local view.
        gain: dB up or down at most.
        background: clips that are mixed in, as a reader takes them; the training data themselves will do. None: none.
        snr: dB between the clip's power and the background's.
        rooms: impulse responses, as a reader takes them; none: no echo.
        bands: largest share of the bands that one mask covers.
        frames: largest share of the frames that one mask covers.
        masks: of bands, and as many of frames.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        seconds: float | None = None,
        share: Bounds = (0.6, 1.0),
        local: Bounds = (0.2, 0.5),
        gain: float = 6.0,
        background: str | None = None,
        snr: Bounds = (0.0, 20.0),
        rooms: str | None = None,
        bands: float = 0.2,
        frames: float = 0.2,
        masks: int = 2,
    ):
        super().__init__(
            facts, seconds=seconds, share=share, local=local, gain=gain, background=background, snr=snr, rooms=rooms
        )
        check_bounds("bands and frames", (min(bands, frames), max(bands, frames)), 0.0, 0.5)
        self.bands, self.frames, self.masks = bands, frames, masks

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind not in RANDOM or not self.masks:
            return batch
        mel = log_mel(batch["wave"], batch["length"], self.mel)
        count = frames_of(batch["length"], self.mel)
        bands = _stripes(torch.full_like(count, mel.shape[1]), mel.shape[1], self.bands, self.masks, draws)
        frames = _stripes(count, mel.shape[2], self.frames, self.masks, draws)
        return {**batch, "logmel": mel.masked_fill(bands[:, :, None] | frames[:, None], 0.0)}


def _stripes(count: Tensor, size: int, most: float, masks: int, draws: Draws) -> Tensor:
    """[B, size] bool: so many stripes inside the first `count` [B] places, each a share of them up to `most`."""
    width = (draws.uniform(masks) * most * count[:, None]).round()  # [B, masks]
    start = (draws.uniform(masks) * (count[:, None] - width + 1)).floor()
    place = torch.arange(size, device=count.device)[:, None]
    return ((place >= start[:, None]) & (place < (start + width)[:, None])).any(-1)


VIEWS: Mapping[str, Callable[..., View]] = {
    "resized_crops": ResizedCrops,
    "segments": Segments,
    "spec_augment": SpecAugment,
}
