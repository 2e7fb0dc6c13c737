"""Log-mel spectrograms, in batches, on the device; settings and statistics come from the reader's facts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unlabeled.contract import Batch, Facts
from unlabeled.errors import UserError
from unlabeled.layers import is_exporting

Count = TypeVar("Count", int, Tensor)

PIECE, MANY = 384, 1 << 16  # frames that are transformed at once: on a CPU what stays in its cache
FLOOR = 1e-6  # power below which there is silence; 16 bits' own noise is about there


@dataclass(frozen=True, slots=True)
class Mel:
    """How sound becomes log-mels: F bands, a frame every `hop` samples."""

    rate: int  # Hz
    mels: int  # F
    hop: int  # samples
    window: int  # samples
    low: float  # Hz
    high: float  # Hz
    mean: float = 0.0  # of log powers, over the training data
    std: float = 1.0

    @staticmethod
    def of(facts: Facts) -> Mel:
        return Mel(**facts["mel"])

    def data(self) -> dict[str, Any]:
        """As facts hold it."""
        return asdict(self)

    def check(self) -> None:
        """Raises UserError where settings contradict each other."""
        if self.rate < 1 or self.mels < 1 or self.hop < 1 or self.window < self.hop:
            raise UserError(
                f"rate {self.rate} Hz, {self.mels} mels, a hop of {self.hop} and a window of {self.window} samples do "
                "not go together: all at least 1, and the window no shorter than the hop"
            )
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise UserError(
                f"mel bands from {self.low:g} to {self.high:g} Hz do not fit a rate of {self.rate} Hz: choose --low "
                f"and --high between 0 and {self.rate / 2:g}"
            )


@lru_cache(maxsize=16)
def _tables(mel: Mel, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Window [W], filters [2 × bins, F] of real and imaginary parts in turn, length of the transform."""
    from torchaudio.functional import melscale_fbanks

    size = 1 << (mel.window - 1).bit_length()
    filters = melscale_fbanks(size // 2 + 1, mel.low, mel.high, mel.mels, mel.rate)
    return torch.hann_window(mel.window, device=device), filters.repeat_interleave(2, 0).to(device), size


@lru_cache(maxsize=16)
def _sparse(mel: Mel) -> Tensor:
    """Filters [F, 2 × bins] for a CPU, which need not multiply by the zeros that most of them are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once a process that these are in beta
        return _tables(mel, torch.device("cpu"))[1].T.contiguous().to_sparse_csr()


def _mels(hertz: Tensor | float) -> Tensor:
    """On the scale of HTK, which the filters are even on."""
    return 2595 * (1 + torch.as_tensor(hertz, dtype=torch.float64) / 700).log10()


def _middles(mel: Mel) -> Tensor:
    return torch.linspace(float(_mels(mel.low)), float(_mels(mel.high)), mel.mels + 2, dtype=torch.float64)[1:-1]


def centres(mel: Mel) -> Tensor:
    """[F] Hz that the bands have in their middles."""
    return 700 * (10 ** (_middles(mel) / 2595) - 1)


def place_of(hertz: Tensor, mel: Mel) -> Tensor:
    """Where frequencies lie among the bands: 0 is the middle of the first, 1 of the second."""
    middles = _middles(mel)
    return (_mels(hertz) - middles[0]) / (middles[1] - middles[0] if mel.mels > 1 else 1.0)


def frames_of(length: Count, mel: Mel) -> Count:
    """How many frames clips of `length` samples have: one is in the middle of every hop-th sample."""
    return 1 + length // mel.hop


def _logs(frames: Tensor, filters: Tensor, size: int, mel: Mel) -> Tensor:
    """Windowed frames [..., W] as standardised log powers [..., F]."""
    parts = torch.view_as_real(torch.fft.rfft(frames, size)).flatten(-2).square()  # the product adds real to imaginary
    power = torch.sparse.mm(filters, parts.T).T if filters.is_sparse_csr else parts @ filters
    logs: Tensor = ((power + FLOOR).log() - mel.mean) / mel.std
    return logs


@torch.no_grad()
def log_mel(wave: Tensor, length: Tensor, mel: Mel) -> Tensor:
    """Standardised log powers of mel bands; zero beyond a clip's end, and the same whatever padding follows.

    Args:
        wave: [B, S], zero from `length` on.
        length: [B] int64, samples.

    Returns:
        [B, F, T] with T = 1 + S // hop.
    """
    T = frames_of(wave.shape[1], mel)
    if not is_exporting():
        return in_place(*log_frames(wave, length, mel), (len(wave), T))
    with torch.autocast(wave.device.type, enabled=False):  # a program cannot choose rows
        window, filters, size = _tables(mel, wave.device)
        logs = _logs(_frames(wave, T, mel) * window, filters, size, mel)
    return torch.where(_there(frames_of(length, mel), T)[..., None], logs, 0).transpose(1, 2)


@torch.no_grad()
def log_frames(wave: Tensor, length: Tensor, mel: Mel) -> tuple[Tensor, Tensor]:
    """The frames of `log_mel` that there are, clip after clip, without padding, which is often most of a batch.

    Returns:
        [N, F] log powers, and where each is: [N, 2] int64, row of the batch and frame.
    """
    count = frames_of(length, mel)
    there = _there(count, frames_of(wave.shape[1], mel))
    made = []
    with torch.autocast(wave.device.type, enabled=False):  # powers span more decades than bfloat16 has digits
        window, filters, size = _tables(mel, wave.device)
        filters = _sparse(mel) if wave.device.type == "cpu" else filters
        for clips in _groups(count):
            most = int(count[clips].max())  # frames of the group's longest
            frames = _frames(wave[clips, : most * mel.hop], most, mel)
            rows = there[clips, :most].nonzero()
            for row, frame in (some.unbind(1) for some in rows.split(PIECE if filters.is_sparse_csr else MANY)):
                made.append(_logs(frames[row, frame].mul_(window), filters, size, mel))
    return torch.cat(made), there.nonzero()


def in_place(values: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
    """[B, F, T] of values [N, F] at rows and frames [N, 2]; zero elsewhere. (B, T) is `shape`."""
    row, frame = place.unbind(1)
    out = values.new_zeros(math.prod(shape), values.shape[1])
    return out.index_copy_(0, row * shape[1] + frame, values).view(*shape, -1).mT


def _there(count: Tensor, T: int) -> Tensor:
    """[B, T] bool, the first `count` [B] frames, which are no padding."""
    return torch.arange(T, device=count.device) < count[:, None]


def _frames(wave: Tensor, count: int, mel: Mel) -> Tensor:
    """[B, count, W], zeros before the wave and after it."""
    return nn.functional.pad(wave.float(), (mel.window // 2, mel.window)).unfold(1, mel.window, mel.hop)[:, :count]


def _groups(count: Tensor) -> list[slice]:
    """Neighbouring clips that go together: on a CPU as few as fill a piece, so that little is padded."""
    B = len(count)
    size = max(1, PIECE * B // max(1, int(count.sum()))) if count.device.type == "cpu" else B
    return [slice(start, min(B, start + size)) for start in range(0, B, size)]


def features(batch: Batch, mel: Mel) -> tuple[Tensor, Tensor]:
    """Log-mels [B, F, T] and each clip's number of frames [B]; a view's own where it has altered them."""
    made = batch.get("logmel")
    made = log_mel(batch["wave"], batch["length"], mel) if made is None else made
    return made, frames_of(batch["length"], mel)


def settings(facts: Mapping[str, Any]) -> str:
    """In words."""
    mel = Mel.of(facts)
    ms = 1000 / mel.rate
    return (
        f"{mel.mels} mels of {mel.low:g} … {mel.high:g} Hz every {mel.hop * ms:g} ms in windows of "
        f"{mel.window * ms:g} ms at {mel.rate} Hz"
    )
