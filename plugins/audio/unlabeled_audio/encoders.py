"""Backbones for log-mels: a ViT of patches, one of frames, and a small convolutional net; the table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Encoder, Facts, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import Trunk, mean_of
from unlabeled_audio.conformer import Conformer
from unlabeled_audio.convolutions import Stage
from unlabeled_audio.tokens import LogMelEncoder
from unlabeled_audio.waves import Wav2Vec2


def sines(index: Tensor, width: int) -> Tensor:
    """[N] whole numbers -> [N, width] sines and cosines of falling frequency (arXiv 1706.03762)."""
    rate = 1e4 ** (-torch.arange(width // 2, device=index.device) / max(width // 2, 1))
    angle = index[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)


class LogMelViT(LogMelEncoder):
    """A transformer on log-mel patches that drops hidden ones (AudioMAE, arXiv 2207.06405).

    Places are fixed sines of the time and the band, counted in tokens, so that clips may be longer than any before.

    Args:
        facts: of the reader.
        width: D, of a token and of a clip.
        depth: transformer layers.
        heads: of attention; none: one per 32 of the width, or the nearest number that divides it.
        patch_mels: bands of a token.
        patch_frames: frames of a token.
        dropout: in the feed-forward layers and attention.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 192,
        depth: int = 6,
        heads: int | None = None,
        patch_mels: int = 16,
        patch_frames: int = 16,
        dropout: float = 0.0,
    ):
        super().__init__(facts, patch_mels, patch_frames)
        if width < 4 or width % 4 or depth < 1:
            raise UserError(f"width must be a multiple of 4 and depth at least 1, not {width} and {depth}")
        if heads is not None and (heads < 1 or width % heads):
            raise UserError(f"width {width} is not a multiple of {heads} heads; choose --heads that divide it")
        self.width = self.embed_width = width
        self.depth = depth
        self.enter = nn.Linear(self.value_width, width)
        self.trunk = Trunk(width, depth, heads, dropout=dropout)

    def embed(self, tokens: Tokens) -> Tensor:
        out: Tensor = self.enter(tokens.values)
        return out

    def _places(self, count: int, device: torch.device) -> Tensor:
        """[N, D] where tokens stand."""
        index = torch.arange(count, device=device)
        if self.rows == 1:
            return sines(index, self.width)
        return torch.cat([sines(index // self.rows, self.width // 2), sines(index % self.rows, self.width // 2)], 1)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens)
        x = x if alter is None else alter(x)
        x = x + self._places(x.shape[1], x.device).to(x.dtype)
        x, kept = self.trunk(x, keep, tokens.owner, layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)


class FrameViT(LogMelViT):
    """The same on slices of four frames of all bands, for what happens when (ATST-Frame, arXiv 2306.04186).

    Args:
        facts: of the reader.
        width: D, of a token and of a clip.
        depth: transformer layers.
        heads: of attention; none: one per 32 of the width, or the nearest number that divides it.
        patch_frames: frames of a token.
        dropout: in the feed-forward layers and attention.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 192,
        depth: int = 6,
        heads: int | None = None,
        patch_frames: int = 4,
        dropout: float = 0.0,
    ):
        mels: int = facts["mel"]["mels"]
        super().__init__(
            facts,
            width=width,
            depth=depth,
            heads=heads,
            patch_mels=mels,
            patch_frames=patch_frames,
            dropout=dropout,
        )


class LogMelCNN(LogMelEncoder):
    """BYOL-A's convolutional net (arXiv 2204.07402): three stages, all bands of a time through an MLP, mean + maximum.

    A token is eight frames of all bands. Hidden ones are a learned blank before the first convolution.

    Args:
        facts: of the reader.
        width: D, of a token and of a clip.
        channels: of the convolutions.
        dropout: in the MLP.
    """

    def __init__(self, facts: Facts, *, width: int = 256, channels: int = 32, dropout: float = 0.0):
        mels: int = facts["mel"]["mels"]
        if mels % 8:
            raise UserError(f"encoder 'cnn' halves the mel bands three times, and {mels} cannot be: choose --mels 64")
        super().__init__(facts, mels, 8)
        if width < 1 or channels < 1:
            raise UserError(f"width and channels must be at least 1, not {width} and {channels}")
        self.width, self.embed_width = width, self.value_width
        self.blank = nn.Parameter(torch.zeros(self.value_width))
        self.stages = nn.ModuleList(Stage(1 if at == 0 else channels, channels) for at in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(channels * mels // 8, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()
        )

    def embed(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: a convolutional net has no layers of tokens"
        values = tokens.values if alter is None else alter(tokens.values)
        if hidden is not None:
            values = torch.where(hidden[..., None], self.blank.to(values.dtype), values)
        values = torch.where(tokens.valid[..., None], values, 0)
        x = self.unpatched(values).permute(0, 2, 1, 3).flatten(2)[:, None]  # [B, 1, F, 8 N]
        for at, stage in enumerate(self.stages):
            x = stage(x, tokens.valid.repeat_interleave(4 >> at, 1))
        x = self.mlp(x.flatten(1, 2).transpose(1, 2))  # [B, C, F / 8, N] -> [B, N, D]
        most = x.masked_fill(~tokens.valid[..., None], -torch.inf).amax(1)
        return Encoded(x, mean_of(x, tokens.valid) + most)


ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    "vit": LogMelViT,
    "frame_vit": FrameViT,
    "cnn": LogMelCNN,
    "conformer": Conformer,
    "wav2vec2": Wav2Vec2,
}
