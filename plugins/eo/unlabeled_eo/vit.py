"""timm's vision transformers on chips, of which hidden patches cost nothing; and one with a token a band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoded, Facts, LibraryModel, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import Trunk, mean_of, packing, unpack
from unlabeled_eo.patches import GRID, ChipEncoder, centres, enough, grid_of, sines


def made(model: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A timm model without its head, and the arguments of timm.create_model that make it.

    Raises:
        UserError: there is none of that name.
    """
    import timm

    arguments = {"model_name": model, "num_classes": 0, **options}
    try:
        return timm.create_model(**arguments), arguments
    except (RuntimeError, TypeError, ValueError) as error:
        near = timm.list_models(f"*{model.split('_')[0]}*")[:5]
        raise UserError(
            f"timm makes no {model!r} ({str(error)[:120]}); some that it makes: {', '.join(near)}"
        ) from None


def of_timm(net: nn.Module, arguments: dict[str, Any]) -> LibraryModel:
    """For `--to backbone`."""
    says = "bands less their mean, over their deviation, zero where there is no value: [B, C, H, W]"
    return LibraryModel("timm", "timm.create_model", arguments, net.state_dict(), says)


class ViT(ChipEncoder):
    """A vision transformer of timm (arXiv 2010.11929) that drops hidden patches (2111.06377).

    An instance is the mean of the patches' tokens. Positions are a table, interpolated to the grid of a crop.

    Args:
        facts: of the reader.
        model: its name in timm, for `--init timm:NAME`; none: a small one for CPUs (width 192, 6 layers).
        patch: pixels a side of a token, where `model` is none.
        width: of a token, where `model` is none.
        depth: transformer layers, where `model` is none.
        dropout: of whole residual branches (drop path).
    """

    backbone = "net"

    def __init__(
        self,
        facts: Facts,
        *,
        model: str | None = None,
        patch: int = 8,
        width: int = 192,
        depth: int = 6,
        dropout: float = 0.0,
    ):
        channels = len(facts["channels"])
        own: dict[str, Any] = {}
        if model is None:
            if width % 32 or depth < 1:
                raise UserError(f"width must be a multiple of 32 and depth at least 1, not {width} and {depth}")
            own = {"patch_size": patch, "img_size": 16 * patch, "embed_dim": width, "depth": depth}
            own |= {"num_heads": width // 32, "class_token": False, "global_pool": "avg", "fc_norm": False}
        name = model or "vit_tiny_patch16_224"
        net, arguments = made(name, in_chans=channels, drop_path_rate=dropout, **own)
        if not hasattr(net, "blocks") or not hasattr(net, "patch_embed") or getattr(net, "pos_embed", None) is None:
            raise UserError(f"encoder 'vit' takes plain vision transformers of timm, and {model!r} is none")
        super().__init__(facts, int(net.embed_dim), int(net.patch_embed.patch_size[0]))
        self.depth, self.embed_width = len(net.blocks), self.width
        self.map_widths = [self.width, self.width]
        self.net, self._arguments = net, arguments
        self.table: Sequence[int] = tuple(net.patch_embed.grid_size)
        if model is None:
            with torch.no_grad():
                net.pos_embed.copy_(0.5 * sines(self.table, self.width))

    def library_model(self) -> LibraryModel:
        return of_timm(self.net, self._arguments)

    def embed(self, tokens: Tokens) -> Tensor:
        proj = self.net.patch_embed.proj
        return self.net.patch_embed.norm(F.linear(tokens.values, proj.weight.flatten(1), proj.bias))  # type: ignore[no-any-return]

    def _positions(self, grid: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """[1, N, D] of patches, and [1, prefix, D] of what stands before them."""
        from timm.layers.pos_embed import resample_abs_pos_embed

        before = 0 if self.net.no_embed_class else self.net.num_prefix_tokens
        table = self.net.pos_embed
        first, rest = (table[:, :before], table[:, before:]) if before else (None, table)
        if list(grid) != list(self.table):
            rest = resample_abs_pos_embed(rest, list(grid), list(self.table), num_prefix_tokens=0)
        return rest, first

    def _prefix(self, batch: int, place: Tensor | None) -> Tensor | None:
        parts = [part for part in (self.net.cls_token, getattr(self.net, "reg_token", None)) if part is not None]
        if not parts:
            return None
        prefix = torch.cat(parts, 1)
        return (prefix if place is None else prefix + place).expand(batch, -1, -1)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        rest, first = self._positions(grid_of(tokens))
        x = x + rest.to(x.dtype)
        prefix = self._prefix(x.shape[0], first)
        count = 0
        if prefix is not None:
            count = prefix.shape[1]
            x = torch.cat([prefix.to(x.dtype), x], 1)
            keep = torch.cat([keep.new_ones(keep.shape[0], count), keep], 1)
        order, mask = packing(keep, None)
        packed = x if order is None else x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
        packed = self.net.norm_pre(packed)
        kept: list[Tensor] = []
        for number, block in enumerate(self.net.blocks):
            packed = block(packed) if mask is None else block(packed, attn_mask=mask)
            if number >= self.depth - layers:
                kept.append(unpack(packed, order, keep)[:, count:])
        x = unpack(self.net.norm(packed), order, keep)[:, count:]
        return Encoded(x, mean_of(x, keep[:, count:]), torch.stack(kept) if layers else None)

    def maps(self, batch: Batch) -> list[Tensor]:
        """Two, both on the grid of patches: the tokens of the middle layer and of the last."""
        tokens = self.tokenize(batch)
        encoded = self(tokens, layers=max(1, self.depth // 2))
        assert encoded.layers is not None
        assert encoded.tokens is not None
        grid = grid_of(tokens)
        return [x.transpose(1, 2).unflatten(2, grid) for x in (encoded.layers[0], encoded.tokens)]


class ViTSmall(ViT):
    """timm's vit_small_patch16_224: width 384, 12 layers, patches of 16 pixels.

    Args:
        facts: of the reader.
        dropout: of whole residual branches (drop path).
    """

    def __init__(self, facts: Facts, *, dropout: float = 0.0):
        super().__init__(facts, model="vit_small_patch16_224", dropout=dropout)


class ChannelViT(ChipEncoder):
    """A token for every patch of every band (ChannelViT, arXiv 2309.16108); bands may be absent, or of several sensors.

    Bands share their projection and differ by an embedding; V = patch², P = 3 (band, row, column).

    Args:
        facts: of the reader.
        width: of a token.
        depth: transformer layers.
        heads: of attention; none: one per 32 of the width.
        patch: pixels a side of a token.
        dropout: in the feed-forward layers and attention.
    """

    coord_width = 3
    bands_apart = True

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 192,
        depth: int = 6,
        heads: int | None = None,
        patch: int = 8,
        dropout: float = 0.0,
    ):
        super().__init__(facts, width, patch)
        if width % 4 or depth < 1 or (heads is not None and (heads < 1 or width % heads)):
            raise UserError(f"width {width} must be a multiple of 4 and of the heads, and depth {depth} at least 1")
        self.value_width = patch**2
        self.depth, self.embed_width = depth, width
        self.enter = nn.Linear(self.value_width, width)
        self.bands = nn.Parameter(0.02 * torch.randn(self.channels, width))
        self.trunk = Trunk(width, depth, heads, dropout=dropout)

    def tokenize(self, batch: Batch) -> Tokens:
        image, good = self._padded(batch)
        B, C = image.shape[:2]
        grid = [side // self.patch for side in image.shape[2:]]
        share = F.avg_pool2d(good.float(), self.patch).flatten(1)  # [B, C × N]
        valid = enough(share)
        values = self.patches(image)
        place = centres(grid, image.device)
        number = ((torch.arange(C, device=image.device) + 0.5) / C).repeat_interleave(place.shape[1])
        coords = torch.cat([number[:, None], place[0].repeat(C, 1)], 1).expand(B, -1, -1)
        context = {GRID: image.new_empty(B, *grid, 0)}
        where = self._where(batch, coords[..., 1:], image)
        where = None if where is None else torch.cat([coords[..., :1], where], -1)
        return Tokens(torch.where(valid[..., None], values, 0), coords, valid, context, where=where)

    def cut(self, maps: Tensor, side: int) -> Tensor:
        apart = super().cut(maps.flatten(0, 1)[:, None], side)
        return apart.reshape(maps.shape[0], -1, apart.shape[-1])

    def image(self, values: Tensor, grid: Sequence[int]) -> Tensor:
        p = self.patch
        cut = values.view(values.shape[0], self.channels, grid[0], grid[1], p, p).transpose(3, 4)
        return cut.reshape(values.shape[0], self.channels, grid[0] * p, grid[1] * p)

    def embed(self, tokens: Tokens) -> Tensor:
        return self.enter(tokens.values)  # type: ignore[no-any-return]

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        place = sines(grid_of(tokens), self.width).to(x)
        x = x + (self.bands[:, None].to(x.dtype) + 0.5 * place).flatten(0, 1)
        x, kept = self.trunk(x, keep, tokens.owner, layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)

    def maps(self, batch: Batch) -> list[Tensor]:
        """One, on the grid of patches: the mean of the bands' tokens."""
        tokens = self.tokenize(batch)
        encoded = self(tokens)
        assert encoded.tokens is not None
        grid = grid_of(tokens)
        weight = tokens.valid.unflatten(1, (self.channels, -1))[..., None].to(encoded.tokens.dtype)
        x = encoded.tokens.unflatten(1, (self.channels, -1)) * weight
        mean = x.sum(1) / weight.sum(1).clamp(min=1)
        return [mean.transpose(1, 2).unflatten(2, grid)]
