"""What hidden tokens can be predicted as, beside their own content."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_audio.tokens import LogMelEncoder
from unlabeled_audio.waves import Wav2Vec2


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
