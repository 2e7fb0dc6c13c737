"""What hidden tokens can be predicted as, beside their own content."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_audio.features import FLOOR, Mel, place_of
from unlabeled_audio.tokens import LogMelEncoder
from unlabeled_audio.waves import FIELD, STRIDE, Wav2Vec2


class Cepstra(nn.Module):
    """Mel-frequency cepstra of a token's time, their slope and curvature: what HuBERT clusters first (2106.07447).

    Tokens of one time have the same ones, whichever their bands.

    Args:
        encoder: of log-mels or waves.
        cepstra: coefficients, the first being the loudness.
    """

    basis: Tensor  # [F, cepstra]

    def __init__(self, encoder: Encoder, *, cepstra: int = 13):
        super().__init__()
        if not isinstance(encoder, LogMelEncoder | Wav2Vec2):
            raise UserError(f"target 'mfcc' is made for encoders of sound, not {type(encoder).__name__}")
        if not 1 <= cepstra <= encoder.bands:
            raise UserError(f"cepstra must be from 1 to the {encoder.bands} mel bands, not {cepstra}")
        self.unpatched, self.width = encoder.unpatched, 3 * cepstra
        self.rows = encoder.rows
        angle = math.pi / encoder.bands * (torch.arange(encoder.bands) + 0.5)
        basis = (angle[:, None] * torch.arange(cepstra)).cos() * math.sqrt(2 / encoder.bands)
        self.register_buffer("basis", basis, persistent=False)

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N, 3 × cepstra]
        cepstra = self.unpatched(tokens.values).transpose(2, 3) @ self.basis  # [B, times, P, cepstra]
        moments = _polynomials(cepstra.shape[2]).to(cepstra)
        out = torch.einsum("btpc,kp->btkc", cepstra, moments).flatten(2)
        return out.repeat_interleave(self.rows, 1)


def _polynomials(count: int) -> Tensor:
    """[3, P] orthogonal weights of P frames: mean, slope and curvature; zero where P is too small for one."""
    x = torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)
    made = [torch.full((count,), 1 / count)]
    for power in (1, 2):
        row = x**power
        for before in made:
            row = row - before * (row @ before) / (before @ before)
        made.append(row / row.norm() if row.norm() > 1e-4 else torch.zeros(count))
    return torch.stack([made[0], *(row / math.sqrt(count) for row in made[1:])])


class ConstantQ(nn.Module):
    """Log powers in bands of equal ratio around each token, as notes are: a constant-Q transform (MERT, 2306.00107).

    Of a wave it is the transform itself: low notes take windows of up to 17 periods, so that neighbours' samples take
    part, and silence beyond the clip; bands that the rate does not reach are not there. Powers are those that frames
    of the log-mels would have, and standardised alike. Of log-mels, which do not tell low notes apart, it is read
    between the mel bands, over the token's frames; tokens of one time have the same.

    Args:
        encoder: of waves or log-mels.
        bands: at most.
        octave: bands of one.
        low: Hz of the first; the paper's, a C1, where librosa's transform begins.
    """

    def __init__(self, encoder: Encoder, *, bands: int = 84, octave: int = 12, low: float = 32.703):
        super().__init__()
        if not isinstance(encoder, LogMelEncoder | Wav2Vec2):
            raise UserError(f"target 'cqt' is made for encoders of sound, not {type(encoder).__name__}")
        if bands < 1 or octave < 1 or low <= 0:
            raise UserError(f"cqt needs bands, an octave and a low above 0, not {bands}, {octave} and {low}")
        rate = encoder.mel.rate
        hertz = low * 2 ** (torch.arange(bands, dtype=torch.float64) / octave)
        hertz = hertz[hertz < 0.45 * rate]
        if not len(hertz):
            raise UserError(f"cqt.low of {low:g} Hz is more than a rate of {rate} Hz holds")
        self.width, self.rows, self.unpatched = len(hertz), encoder.rows, encoder.unpatched
        self.of_wave, self.mel = isinstance(encoder, Wav2Vec2), encoder.mel
        made = _waves(hertz, rate, octave) if isinstance(encoder, Wav2Vec2) else _between(hertz, encoder.mel)
        self.register_buffer("kernel", made.float(), persistent=False)  # [W, 2 × bands] or [F, bands]

    kernel: Tensor

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N, bands]
        out: Tensor
        if not self.of_wave:
            out = self.unpatched(tokens.values).float().mean(-1) @ self.kernel
            return out.repeat_interleave(self.rows, 1)
        wave = torch.cat([tokens.values[..., :STRIDE].flatten(1), tokens.values[:, -1, STRIDE:]], 1)
        size = len(self.kernel)
        around = nn.functional.pad(wave.float(), (size // 2 - FIELD // 2, size // 2 + FIELD // 2))
        frames = around.unfold(1, size, STRIDE)[:, : tokens.valid.shape[1]]
        parts = torch.stack([some @ self.kernel for some in frames])  # a clip at a time: windows are long
        power = parts.unflatten(-1, (2, -1)).square().sum(-2) * (self.mel.window / 2) ** 2
        out = ((power + FLOOR).log() - self.mel.mean) / self.mel.std
        return out


def _waves(hertz: Tensor, rate: int, octave: int) -> Tensor:
    """[W, 2 × bands] cosines, then sines, each in a Hann window of as many periods as tell it from its neighbours."""
    lengths = (rate / hertz / (2 ** (1 / octave) - 1)).clamp(max=2.0 * rate)
    size = 2 * math.ceil(float(lengths.max()) / 2) + 1
    time = torch.arange(size, dtype=torch.float64)[:, None] - size // 2
    window = (0.5 + 0.5 * (2 * math.pi * time / lengths).cos()) * (time.abs() <= lengths / 2)
    angle = 2 * math.pi * hertz / rate * time
    return torch.cat([angle.cos(), angle.sin()], 1) * (window / window.sum(0)).repeat(1, 2)


def _between(hertz: Tensor, mel: Mel) -> Tensor:
    """[F, bands] weights that read a frequency off the mel bands on both sides of it; the outermost beyond them."""
    far = (place_of(hertz, mel).clamp(0, mel.mels - 1)[None] - torch.arange(mel.mels)[:, None]).abs()
    return (1 - far).clamp(min=0)
