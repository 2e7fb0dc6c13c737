"""Parts that encoders and terms share: a transformer that drops hidden tokens, places, heads, batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.collectives import sum_over_ranks, world
from unlabeled.contract import Encoder, Predictor, Tokens

__all__ = ["BatchNorm", "Place", "Trunk", "head", "is_exporting", "mean_of", "packing", "predictor", "unpack"]


def is_exporting() -> bool:
    """Whether torch.export follows the code, so that it must not depend on numbers; torch.compile may fall back.

    Some versions of torch (2.8 is one) call both the same.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def mean_of(x: Tensor, keep: Tensor) -> Tensor:
    """The mean of kept tokens: [B, N, D], [B, N] bool -> [B, D]; zero where a sample keeps none."""
    weight = keep.to(x.dtype)
    return torch.einsum("bnd,bn->bd", x, weight) / weight.sum(1, keepdim=True).clamp(min=1)


class Block(nn.Module):
    """A pre-norm transformer layer (arXiv 2002.04745) on torch's fused attention."""

    def __init__(self, width: int, heads: int, ratio: float = 4.0, dropout: float = 0.0):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = int(width * ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # [B, N, D], [B, 1, 1 or N, N] bool
        B, N, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.drop.p if self.drop.training else 0.0
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, mask, drop).transpose(1, 2).reshape(B, N, D))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Trunk(nn.Module):
    """Transformer layers and a final norm over the kept tokens only; the others cost nothing and leak nothing."""

    def __init__(self, width: int, depth: int, heads: int | None = None, ratio: float = 4.0, dropout: float = 0.0):
        super().__init__()
        heads = heads or next(count for count in range(max(1, width // 32), 0, -1) if width % count == 0)
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(_init)

    def forward(
        self, x: Tensor, keep: Tensor, owner: Tensor | None = None, layers: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Run kept tokens; places that are not kept come back as zeros.

        Args:
            x: [B, N, D].
            keep: [B, N] bool.
            owner: [B, N]; in flat storage tokens of one row attend only to tokens of the same sample.
            layers: how many of the last layers' outputs to return besides.

        Returns:
            normed tokens [B, N, D] and `layers` tensors of that shape, oldest first.
        """
        order, mask = packing(keep, owner)
        packed = x if order is None else x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            packed = block(packed, mask)
            if number >= len(self.blocks) - layers:
                kept.append(unpack(packed, order, keep))
        return unpack(self.norm(packed), order, keep), kept


def packing(keep: Tensor, owner: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """How a transformer runs kept tokens only.

    Args:
        keep: [B, N] bool.
        owner: [B, N]; in flat storage tokens of one row attend only to tokens of the same sample.

    Returns:
        indices [B, L] that move kept tokens to the front, and the attention mask; None where not needed.
    """
    counts = keep.sum(1)
    if is_exporting():  # for any batch: nothing moves, and what is not kept is attended to by none
        seen = (keep | (counts == 0)[:, None])[:, None, None]
        return None, seen if owner is None else _within(owner, seen)
    least, most = torch.stack(counts.aminmax()).tolist()  # the one question a step asks the device
    order, owner_kept = None, owner
    if least < keep.shape[1]:
        order = (~keep).byte().argsort(dim=1, stable=True)[:, : max(most, 1)]
        owner_kept = owner if owner is None else owner.gather(1, order)
    mask = None
    if least < most or most == 0:
        slots = torch.arange(max(most, 1), device=keep.device)
        mask = (slots < counts.clamp(min=1)[:, None])[:, None, None]  # softmax needs one key in every row
    if owner_kept is not None:
        mask = _within(owner_kept, mask)
    return order, mask


def _within(owner: Tensor, mask: Tensor | None) -> Tensor:
    """The mask for tokens that attend to those of the same owner [B, N], and to themselves always."""
    same = owner[:, None, :, None] == owner[:, None, None, :]
    return same if mask is None else same & mask | torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)


def unpack(packed: Tensor, order: Tensor | None, keep: Tensor) -> Tensor:
    """Packed tokens [B, L, D] at their places again [B, N, D]; zeros where nothing was kept."""
    if order is None:
        return torch.where(keep[..., None], packed, 0) if is_exporting() else packed
    out = packed.new_zeros(*keep.shape, packed.shape[-1])
    out = out.scatter(1, order[..., None].expand(-1, -1, packed.shape[-1]), packed)
    return torch.where(keep[..., None], out, 0)


class Place(nn.Module):
    """Coordinates as features: sines of rising frequency, then a small network, so that near places differ."""

    frequencies: Tensor

    def __init__(self, coord_width: int, width: int, octaves: int = 8):
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        features = coord_width * (2 * octaves + 1)
        self.net = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.apply(_init)

    def forward(self, coords: Tensor) -> Tensor:  # [B, N, P] -> [B, N, D]
        angles = (coords[..., None] * self.frequencies).flatten(-2)
        out: Tensor = self.net(torch.cat([coords, angles.sin(), angles.cos()], -1))
        return out


class TransformerPredictor(Predictor):
    """The default predictor: a transformer over seen and wanted tokens, placed by their coordinates."""

    def __init__(self, in_width: int, coord_width: int, out_width: int, width: int, depth: int):
        super().__init__()
        self.enter, self.place = nn.Linear(in_width, width), Place(coord_width, width)
        self.blank = nn.Parameter(torch.zeros(width))
        self.trunk = Trunk(width, depth)
        self.leave = nn.Linear(width, out_width)
        for layer in (self.enter, self.leave):
            _init(layer)
        nn.init.normal_(self.blank, std=0.02)

    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        x = torch.where(seen[..., None] & ~wanted[..., None], self.enter(latent), self.blank.to(latent.dtype))
        x, _ = self.trunk(x + self.place(tokens.coords), seen | wanted, tokens.owner)
        out: Tensor = self.leave(x)
        return out


def predictor(encoder: Encoder, out: int, width: int | None, depth: int) -> Predictor:
    """The encoder's own predictor, or the default transformer; half the encoder's width, at least 32, unless told."""
    inner = width or max(32, encoder.width // 2)
    return encoder.predictor(out, inner, depth) or TransformerPredictor(
        encoder.width, encoder.coord_width, out, inner, depth
    )


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the *global* batch, on any backend and for [N, C] and [N, C, *].

    torch's SyncBatchNorm exists for GPUs alone, and the plain one makes a loss depend on the number of ranks.
    Ranks may hold different numbers of rows, as they do when rows are nodes or kept tokens.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        flat = input.transpose(0, 1).flatten(1).T.float()  # [N, C]
        total = sum_over_ranks(torch.cat([flat.sum(0), flat.new_full((1,), len(flat))]))
        count = total[-1]
        mean = total[:-1] / count
        var = sum_over_ranks((flat - mean).square().sum(0)) / count
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * count / (count - 1), share)
        shape = (1, -1) + (1,) * (input.dim() - 2)
        out = (input - mean.view(shape)) * (var.view(shape) + self.eps).rsqrt()
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)


def synchronised(module: nn.Module) -> nn.Module:
    """Replace every torch batch norm inside by one over the global batch; weights and state are the same objects.

    Others' subclasses, which may do more than normalise (timm's activate), are left alone.
    """
    for name, child in module.named_children():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
            new = BatchNorm.__new__(BatchNorm)
            new.__dict__ = child.__dict__  # the same parameters, buffers, hooks and mode
            setattr(module, name, new)
        else:
            synchronised(child)
    return module


def head(
    widths: Sequence[int], *, norm: bool = True, last_norm: bool = False, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """An MLP `widths[0] -> ... -> widths[-1]`: linear, (batch norm), activation; the last one is plain linear.

    `last_norm` ends with a batch norm without weights, as SimSiam's and MoCo v3's projectors do.
    """
    parts: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        parts += [nn.Linear(before, after, bias=not norm), *([BatchNorm(after)] if norm else []), act()]
    parts.append(nn.Linear(widths[-2], widths[-1], bias=not last_norm))
    if last_norm:
        parts.append(BatchNorm(widths[-1], affine=False))
    return nn.Sequential(*parts)


def _init(module: nn.Module) -> None:
    """ViT's initialisation: truncated normal .02, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
