"""A whole U-Net as an encoder, so that its way up is pre-trained too."""

from __future__ import annotations

from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, Tokens
from unlabeled_medical.dense import WayUp
from unlabeled_medical.patches import cut
from unlabeled_medical.residual import passed, residual, residual_stages, widths_of
from unlabeled_medical.stages import BlankingEncoder


class UNet(BlankingEncoder):
    """A residual U-Net with its way up: what methods learn of tokens, they learn of voxels.

    A token is linear in the voxels of its patch on the finest map, where Models Genesis (arXiv 1908.06912), Volume
    Fusion (2306.16925) and nnU-Net's masked autoencoders (2410.23132) have their losses too; an instance is the mean
    of the coarsest stage. Fine-tuning for segmentation adds nothing but scores linear in the finest map.

    Args:
        facts: of the reader.
        planes: channels of the first stage; each stage has twice those of the one before, 320 at most, and on the way
            up four times `planes` at most.
        blocks: residual blocks of each stage, from the finest.
        patch: voxels a side of what is hidden. Tokens have the coarsest stage's width, and patches of no more voxels
            than that can be rebuilt in full: 4³ = 64 of 8 × `planes` = 128.

    Raises:
        UserError: planes are no multiple of 8, or a stage has no block.
    """

    decodes = True

    def __init__(self, facts: Facts, *, planes: int = 16, blocks: tuple[int, ...] = (1, 1, 2, 2), patch: int = 4):
        widths = widths_of(planes, blocks)
        super().__init__(facts, widths[-1], patch)
        self.map_widths = [min(width, 4 * planes) for width in widths]
        self.stages = residual_stages(self.channels, widths, blocks)
        self.way_up = WayUp(widths, self.map_widths, residual)
        self.project = nn.Linear(self.map_widths[0] * patch**3, self.width)

    def maps(self, image: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.way_up(passed(self.stages, image))
        return found

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: stages differ in width, so that they are no layers of tokens"
        down = passed(self.stages, self.shown(tokens, hidden, alter))
        voxels = cut(self.way_up(down)[0], self.patch)
        return Encoded(self.project(voxels), down[-1].mean((2, 3, 4)))  # a norm would take each patch's contrast away
