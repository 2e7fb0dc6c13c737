"""A conformer on frames of log-mels: attention for what is far, convolutions for what is near (arXiv 2005.08100)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import mean_of
from unlabeled_audio.tokens import LogMelEncoder


class Convolution(nn.Module):
    """The paper's convolution module, in which padding is silence; torchaudio's reads what padding became before it.

    The norm is over channels: batch norm over times would count padding, or make clips depend on each other.
    """

    def __init__(self, width: int, kernel: int, dropout: float):
        super().__init__()
        self.enter, self.gate = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.near = nn.Conv1d(width, width, kernel, padding="same", groups=width)
        self.norm, self.leave, self.drop = nn.LayerNorm(width), nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # [B, N, D], [B, N] bool
        x = F.glu(self.gate(self.enter(x)), -1)
        x = self.near(torch.where(keep[..., None], x, 0).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.drop(self.leave(F.silu(self.norm(x))))
        return out


def _forward(width: int, dropout: float) -> nn.Sequential:
    drop = nn.Dropout(dropout)
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), drop, nn.Linear(4 * width, width), drop
    )


class Layer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float):
        super().__init__()
        self.before, self.after = _forward(width, dropout), _forward(width, dropout)
        self.look = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.convolution, self.norm = Convolution(width, kernel, dropout), nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = x + self.before(x) / 2
        look = self.look(x)
        x = x + self.attention(look, look, look, key_padding_mask=~keep, need_weights=False)[0]
        x = x + self.convolution(x, keep)
        out: Tensor = self.norm(x + self.after(x) / 2)
        return out


class Conformer(LogMelEncoder):
    """Layers of attention and convolution over slices of all bands; hidden ones are a learned blank before them.

    Convolutions say where a token is among its neighbours; nothing else does, as in encoders that take clips of any
    length.

    Args:
        facts: of the reader.
        width: D, of a token and of a clip.
        depth: layers.
        heads: of attention.
        kernel: tokens that a convolution sees, an odd number.
        patch_frames: frames of a token.
        dropout: in all modules.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 144,
        depth: int = 4,
        heads: int = 4,
        kernel: int = 15,
        patch_frames: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__(facts, facts["mel"]["mels"], patch_frames)
        if min(width, depth, heads) < 1 or width % heads:
            raise UserError(f"width {width} is not a multiple of {heads} heads; choose --encoder.heads that divide it")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"kernel is an odd number of tokens, so that one is in the middle, not {kernel}")
        self.width = self.embed_width = width
        self.depth = depth
        self.enter = nn.Linear(self.value_width, width)
        self.blank = nn.Parameter(torch.randn(width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads, kernel, dropout) for _ in range(depth))

    def embed(self, tokens: Tokens) -> Tensor:
        out: Tensor = self.enter(tokens.values)
        return out

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        x = self.embed(tokens)
        x = x if alter is None else alter(x)
        if hidden is not None:
            x = torch.where(hidden[..., None], self.blank.to(x.dtype), x)
        kept: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x = torch.where(tokens.valid[..., None], layer(x, tokens.valid), 0)
            if number >= self.depth - layers:
                kept.append(x)
        return Encoded(x, mean_of(x, tokens.valid), torch.stack(kept) if layers else None)
