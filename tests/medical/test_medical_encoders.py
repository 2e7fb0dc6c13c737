"""What the conformance kit cannot know: scales for dense use, MONAI's weights, and what hiding saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.errors import UserError
from unlabeled.training.initial import initialise
from unlabeled_medical.encoders import SIZES, ViT
from unlabeled_medical.patches import VolumeEncoder, grid_of
from unlabeled_medical.residual import ResNet3D, ResUNet
from unlabeled_medical.swin import SwinUNETR
from unlabeled_medical.unet import UNet

FACTS = {"channels": 2, "shape": [24.0, 24.0, 24.0]}
ENCODERS = list(plugins.load("medical").encoders)


def make(name: str, **options: Any) -> VolumeEncoder:
    encoder: VolumeEncoder = plugins.load("medical").make("encoder", name, FACTS, **options)
    return encoder.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_maps_are_as_wide_as_said_and_ever_coarser(name: str) -> None:
    encoder = make(name)
    maps = encoder.maps(torch.randn(2, 2, 24, 16, 20))
    assert [one.shape[1] for one in maps] == list(encoder.map_widths)
    sizes = [tuple(one.shape[2:]) for one in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert all(one.isfinite().all() for one in maps)


@pytest.mark.parametrize("name", ENCODERS)
def test_crops_need_not_be_multiples_of_anything(name: str) -> None:
    encoder = make(name, patch=8)
    tokens = encoder.tokenize({"image": torch.randn(1, 2, 17, 9, 13)})
    assert grid_of(tokens) == [3, 2, 2]
    assert encoder(tokens).tokens.shape == (1, 12, encoder.width)  # type: ignore[union-attr]


def test_patches_go_together_again() -> None:
    encoder = make("vit", patch=4)
    image = torch.randn(3, 2, 8, 12, 16)
    assert torch.equal(encoder.image(encoder.tokenize({"image": image}).values, [2, 3, 4]), image)


def test_patches_outside_of_the_volume_are_not_valid() -> None:
    encoder = make("vit", patch=4)
    where = torch.tensor([[[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]])  # twice as deep as the volume
    tokens = encoder.tokenize({"image": torch.ones(1, 2, 16, 8, 8), "where": where})
    assert tokens.valid.view(4, 2, 2)[:, 0, 0].tolist() == [True, True, False, False]
    assert tokens.values[~tokens.valid].eq(0).all()
    assert tokens.where is not None
    assert tokens.where.view(4, 2, 2, 3)[:, 0, 0, 0].tolist() == [0.25, 0.75, 1.25, 1.75]


def test_a_vit_at_three_quarters_hidden_does_a_fraction_of_the_work() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder = ViT(FACTS, patch=4)
    tokens = encoder.tokenize({"image": torch.randn(2, 2, 24, 24, 24)})
    hidden = torch.arange(216).expand(2, -1) % 4 != 0

    def work(what: Tensor | None) -> int:
        with FlopCounterMode(display=False) as count:
            encoder(tokens, what)
        return int(count.get_total_flops())

    assert work(None) > 2.5 * work(hidden)


@pytest.mark.parametrize("size", SIZES)
def test_vit_sizes_are_those_of_images(size: str) -> None:
    with torch.device("meta"):
        encoder = ViT(FACTS, size=size)
    assert (encoder.width, encoder.depth) == SIZES[size]


def test_a_token_of_the_unet_is_linear_in_its_own_voxels_of_the_finest_map() -> None:
    encoder = UNet(FACTS, planes=8, patch=4)
    fine: list[Tensor] = []
    encoder.way_up.register_forward_hook(lambda module, before, maps: fine.append(maps[0]))
    tokens = encoder.tokenize({"image": torch.randn(1, 2, 12, 8, 8)})
    made = encoder(tokens).tokens
    assert made is not None
    assert fine[0].shape == (1, 8, 12, 8, 8), "as fine as the crop"
    (slope,) = torch.autograd.grad(made[0, 5].square().sum(), fine[0])  # patch 1, 0, 1 of 3, 2, 2
    (touched,) = slope[0].abs().sum(0, keepdim=True)
    box = torch.zeros(12, 8, 8, dtype=torch.bool)
    box[4:8, :4, 4:] = True
    assert torch.equal(touched > 0, box)
    voxels = fine[0][0, :, 4:8, :4, 4:].flatten()
    torch.testing.assert_close(made[0, 5], encoder.project(voxels), atol=1e-5, rtol=1e-5)


def test_swin_unetr_takes_monais_weights(tmp_path: Path) -> None:
    from monai.networks.nets.swin_unetr import SwinUNETR as Theirs

    theirs = Theirs(in_channels=2, out_channels=3, feature_size=12, depths=(1, 1, 1, 1))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "swin.pt")
    encoder = SwinUNETR(FACTS, depths=(1, 1, 1, 1), window=7).eval()
    note = initialise(encoder, str(tmp_path / "swin.pt"))
    own = len(encoder.net.state_dict())
    assert note.startswith(f"{own} of {own} weights of the net")
    image = torch.randn(1, 2, 32, 32, 32)
    wanted = theirs.eval().swinViT(image, True)
    for a, b in zip(encoder.maps(image), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_resnet_takes_monais_weights(tmp_path: Path) -> None:
    from monai.networks.nets.resnet import ResNet

    theirs = ResNet("basic", [2, 2, 2, 2], [4, 8, 16, 32], n_input_channels=2, conv1_t_stride=2)
    state = {f"module.{name}": weight for name, weight in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet.pt")
    encoder = ResNet3D(FACTS, layers=18, planes=4)
    note = initialise(encoder, str(tmp_path / "resnet.pt"))
    own = len(encoder.net.state_dict())
    assert note.startswith(f"{own} of {own} weights of the net")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ViT(FACTS, size="huge"), "no size of vit is called 'huge'"),
        (lambda: ViT(FACTS, patch=0), "must be at least 1"),
        (lambda: ResNet3D(FACTS, layers=7), "no number of layers of resnet3d"),
        (lambda: ResUNet(FACTS, planes=12), "multiple of 8"),
        (lambda: ResUNet(FACTS, blocks=(1, 0)), "at least one block"),
        (lambda: SwinUNETR(FACTS, planes=16), "multiple of 12"),
        (lambda: SwinUNETR(FACTS, depths=(1, 0, 1, 1)), "four numbers from 1"),
    ],
)
def test_options_that_make_no_sense(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
