"""3D residual networks of MONAI's blocks: a ResNet, and the encoder of a residual U-Net."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from unlabeled.contract import Facts, LibraryModel
from unlabeled.errors import UserError, choose
from unlabeled_medical.stages import StagedEncoder

DEPTHS = {"10": ("basic", [1, 1, 1, 1]), "18": ("basic", [2, 2, 2, 2]), "50": ("bottleneck", [3, 4, 6, 3])}


class ResNet3D(StagedEncoder):
    """A 3D ResNet (arXiv 1512.03385, 1711.09577), strides 4 to 32.

    Args:
        facts: of the reader.
        layers: 10, 18 or 50.
        planes: of the first stage; each of the three others has twice those of the one before.
        patch: voxels a side of what is hidden.
    """

    backbone = "net"

    def __init__(self, facts: Facts, *, layers: int = 10, planes: int = 16, patch: int = 8):
        from monai.networks.nets.resnet import ResNet

        block, counts = choose("number of layers of resnet3d", str(layers), DEPTHS)
        widths = [planes * 2**stage for stage in range(4)]
        super().__init__(facts, [width * (4 if block == "bottleneck" else 1) for width in widths], patch)
        self._arguments: dict[str, Any] = {
            "block": block,
            "layers": counts,
            "block_inplanes": widths,
            "n_input_channels": self.channels,
            "conv1_t_stride": 2,
            "feed_forward": False,
        }
        self.net = ResNet(**self._arguments)

    def library_model(self) -> LibraryModel:
        return self.of_monai("monai.networks.nets.resnet.ResNet", self._arguments)

    def maps(self, image: Tensor) -> list[Tensor]:
        net = self.net
        x = net.layer1(net.maxpool(net.act(net.bn1(net.conv1(image)))))
        stages = [x]
        for layer in (net.layer2, net.layer3, net.layer4):
            stages.append(x := layer(x))
        return stages


class ResUNet(StagedEncoder):
    """The encoder of a residual U-Net as nnU-Net has it (arXiv 2404.09556), strides 1, 2, 4 and so on.

    Norms are over groups of channels in place of single ones, since a small crop may leave one voxel to the last stage.

    Args:
        facts: of the reader.
        planes: channels of the first stage; each stage has twice those of the one before, 320 at most.
        blocks: residual blocks of each stage, from the finest.
        patch: voxels a side of what is hidden.

    Raises:
        UserError: planes are no multiple of 8, or a stage has no block.
    """

    def __init__(self, facts: Facts, *, planes: int = 16, blocks: tuple[int, ...] = (1, 1, 2, 2), patch: int = 8):
        widths = widths_of(planes, blocks)
        super().__init__(facts, widths, patch)
        self.stages = residual_stages(self.channels, widths, blocks)

    def maps(self, image: Tensor) -> list[Tensor]:
        return passed(self.stages, image)


def widths_of(planes: int, blocks: Sequence[int]) -> list[int]:
    """Channels of the stages of a residual U-Net, the finest first.

    Raises:
        UserError: planes are no multiple of 8, or a stage has no block.
    """
    if planes < 8 or planes % 8:
        raise UserError(f"planes of a residual U-Net are a multiple of 8, not {planes}")
    if not blocks or min(blocks) < 1:
        raise UserError(f"every stage of a residual U-Net has at least one block, not {blocks}")
    return [min(planes * 2**stage, 320) for stage in range(len(blocks))]


def residual_stages(channels: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """Stages of residual blocks over an image of some channels; each but the first halves what it is given."""
    stages = nn.ModuleList()
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        before, stride = (widths[number - 1], 2) if number else (channels, 1)
        rest = (residual(width, width) for _ in range(count - 1))
        stages.append(nn.Sequential(residual(before, width, stride), *rest))
    return stages


def residual(before: int, after: int, stride: int = 1) -> nn.Module:
    """A residual block of two convolutions of 3 voxels a side, with norms over 8 groups of channels."""
    from monai.networks.blocks.dynunet_block import UnetResBlock

    block: nn.Module = UnetResBlock(3, before, after, 3, stride, ("group", {"num_groups": 8}))
    return block


def passed(stages: Iterable[nn.Module], image: Tensor) -> list[Tensor]:
    """What every stage makes of the one before, the finest first."""
    made = []
    for stage in stages:
        made.append(image := stage(image))
    return made
