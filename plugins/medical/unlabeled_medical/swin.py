"""MONAI's Swin transformer, the encoder of Swin UNETR."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unlabeled.contract import Facts, LibraryModel
from unlabeled.errors import UserError
from unlabeled_medical.stages import StagedEncoder

HEADS = (3, 6, 12, 24)


class SwinUNETR(StagedEncoder):
    """The encoder of Swin UNETR (arXiv 2201.01266), strides 2 to 32; --init takes MONAI's weights of it.

    Args:
        facts: of the reader.
        planes: channels of the first stage, a multiple of 12; MONAI's published weights have 48, and windows of 7.
        depths: transformer layers of each of the four stages.
        window: patches of 2³ voxels a side of a window of attention.
        patch: voxels a side of what is hidden.

    Raises:
        UserError: planes are no multiple of 12, or there are not four stages.
    """

    backbone = "net"

    def __init__(
        self,
        facts: Facts,
        *,
        planes: int = 12,
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        window: int = 4,
        patch: int = 8,
    ):
        from monai.networks.nets.swin_unetr import SwinTransformer

        if planes < 12 or planes % 12:
            raise UserError(f"planes of swin_unetr are a multiple of 12, not {planes}")
        if len(depths) != len(HEADS) or min(depths) < 1:
            raise UserError(f"depths of swin_unetr are four numbers from 1, not {depths}")
        super().__init__(facts, [planes * 2**stage for stage in range(5)], patch)
        self._arguments: dict[str, Any] = {
            "in_chans": self.channels,
            "embed_dim": planes,
            "window_size": [window] * 3,
            "patch_size": [2, 2, 2],
            "depths": list(depths),
            "num_heads": list(HEADS),
        }
        self.net = SwinTransformer(**self._arguments)

    def library_model(self) -> LibraryModel:
        return self.of_monai("monai.networks.nets.swin_unetr.SwinTransformer", self._arguments)

    def maps(self, image: Tensor) -> list[Tensor]:
        stages: list[Tensor] = self.net(image)
        return stages
