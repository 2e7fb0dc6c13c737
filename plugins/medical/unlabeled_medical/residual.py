"""A 3D residual network of MONAI's, whose hidden patches are blank before the first convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.contract import Alteration, Encoded, Facts, Tokens
from unlabeled.errors import choose
from unlabeled_medical.patches import GRID, VolumeEncoder

DEPTHS = {"10": ("basic", [1, 1, 1, 1]), "18": ("basic", [2, 2, 2, 2]), "50": ("bottleneck", [3, 4, 6, 3])}


class ResNet3D(VolumeEncoder):
    """A 3D ResNet (arXiv 1512.03385, 1711.09577) over volumes with blank voxels where patches may not be seen.

    A token is what the second and the last stage, resampled to the grid of patches, make of its place; an instance
    is the mean of the last stage. Convolutions reach across patches, so that hiding saves no time.

    Args:
        facts: of the reader.
        layers: 10, 18 or 50.
        planes: of the first stage; each of the three others has twice those of the one before.
        patch: voxels a side of what is hidden.
    """

    def __init__(self, facts: Facts, *, layers: int = 10, planes: int = 16, patch: int = 8):
        block, counts = choose("number of layers of resnet3d", str(layers), DEPTHS)
        widths = [planes * 2**stage for stage in range(4)]
        expansion = 4 if block == "bottleneck" else 1
        super().__init__(facts, widths[3] * expansion, patch)
        from monai.networks.nets.resnet import ResNet

        self.net = ResNet(block, counts, widths, n_input_channels=self.channels, conv1_t_stride=2, feed_forward=False)
        self.fine, self.coarse = nn.Linear(widths[1] * expansion, self.width), nn.Linear(self.width, self.width)
        self.norm = nn.LayerNorm(self.width)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert layers == 0, "depth 0: a residual network has no layers of tokens"
        seen = tokens.valid if hidden is None else tokens.valid & ~hidden
        grid = tokens.context[GRID][0].tolist()
        net = self.net
        x = self.image(torch.where(seen[..., None], tokens.values, 0), grid)
        x = net.layer1(net.maxpool(net.act(net.bn1(net.conv1(x)))))
        fine = net.layer2(x)
        coarse = net.layer4(net.layer3(fine))
        out = self.fine(_on_grid(fine, grid)) + self.coarse(_on_grid(coarse, grid))
        return Encoded(self.norm(out), coarse.mean((2, 3, 4)))


def _on_grid(x: Tensor, grid: list[int]) -> Tensor:
    """A map [B, D, d, h, w] as tokens [B, N, D], one for each place of the grid."""
    return F.interpolate(x, grid, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
