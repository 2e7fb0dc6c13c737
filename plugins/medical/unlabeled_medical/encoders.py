"""A vision transformer of cubic patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, Tokens
from unlabeled.errors import choose
from unlabeled.layers import Place, Trunk, mean_of
from unlabeled_medical.patches import VolumeEncoder, grid_of

SIZES = {  # width, depth
    "micro": (96, 4),
    "tiny": (192, 12),
    "small": (384, 12),
    "base": (768, 12),
    "large": (1024, 24),
}


class ViT(VolumeEncoder):
    """A vision transformer on patches of a volume (arXiv 2010.11929, 2203.00240); hidden patches cost nothing.

    Args:
        facts: of the reader.
        size: micro (width 96, 4 layers, for CPUs), tiny, small, base or large, as of images.
        patch: voxels a side; 16 is usual, 8 better for small structures (Primus, arXiv 2503.01835).
        width: instead of the size's.
        depth: transformer layers, instead of the size's.
        dropout: in the feed-forward layers and attention.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        size: str = "micro",
        patch: int = 8,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
    ):
        usual_width, usual_depth = choose("size of vit", size, SIZES)
        super().__init__(facts, width or usual_width, patch)
        self.depth, self.embed_width = depth or usual_depth, self.width
        self.map_widths = [self.width, self.width]
        self.enter, self.place = nn.Linear(self.value_width, self.width), Place(3, self.width)
        self.trunk = Trunk(self.width, self.depth, dropout=dropout)

    def embed(self, tokens: Tokens) -> Tensor:
        return self.enter(tokens.values)  # type: ignore[no-any-return]

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x, kept = self.trunk(x + self.place(tokens.coords), keep, layers=layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Two, both on the grid of patches: the tokens of the middle layer and of the last."""
        tokens = self.tokenize({"image": image})
        encoded = self(tokens, layers=max(1, self.depth // 2))
        assert encoded.layers is not None
        assert encoded.tokens is not None
        grid = grid_of(tokens)
        return [x.transpose(1, 2).unflatten(2, grid) for x in (encoded.layers[0], encoded.tokens)]


class ViTSmall(ViT):
    """The `vit` of size small: width 384, 12 layers.

    Args:
        facts: of the reader.
        patch: voxels a side.
        depth: transformer layers, instead of 12.
        dropout: in the feed-forward layers and attention.
    """

    def __init__(self, facts: Facts, *, patch: int = 8, depth: int | None = None, dropout: float = 0.0):
        super().__init__(facts, size="small", patch=patch, depth=depth, dropout=dropout)
