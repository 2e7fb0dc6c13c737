"""Encoders: what timm's own networks give, other grids, other checkpoints, absent bands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from unlabeled.errors import UserError
from unlabeled.training.initial import initialise
from unlabeled_eo.convolutions import ConvNeXt, ResNet
from unlabeled_eo.vit import ChannelViT, ViT

FACTS: dict[str, Any] = {
    "channels": ["VV", "VH"],
    "bands": ["VV", "VH"],
    "scale": "none",
    "complex": False,
    "radar": True,
    "mean": [0.0, 0.0],
    "std": [1.0, 1.0],
    "low": [-2.0, -2.0],
    "high": [2.0, 2.0],
    "chip": 64,
    "side": 40,
}


def batch(side: int, count: int = 2, channels: int = 2) -> dict[str, torch.Tensor]:
    valid = torch.ones(count, side, side, dtype=torch.bool)
    return {"image": torch.randn(count, channels, side, side), "valid": valid}


@pytest.mark.parametrize("model", ["test_vit", "test_vit2", "test_vit3"])
def test_a_vit_gives_what_timm_gives(model: str) -> None:
    """With class and register tokens, and whatever norms a model has."""
    encoder = ViT(FACTS, model=model).eval()
    side = int(encoder.net.patch_embed.img_size[0])
    both = batch(side)
    with torch.no_grad():
        wanted = encoder.net.forward_features(both["image"])[:, encoder.net.num_prefix_tokens :]
        got = encoder(encoder.tokenize(both))
    torch.testing.assert_close(got.tokens, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.instances, wanted.mean(1), rtol=1e-4, atol=1e-4)


def test_a_vit_takes_crops_of_any_size_with_timms_interpolation() -> None:
    encoder = ViT(FACTS, model="test_vit").eval()
    other = timm.create_model("test_vit", num_classes=0, in_chans=2, dynamic_img_size=True).eval()
    other.load_state_dict(encoder.net.state_dict())
    both = batch(96)
    with torch.no_grad():
        wanted = other.forward_features(both["image"])[:, 1:]
        torch.testing.assert_close(encoder(encoder.tokenize(both)).tokens, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "model"), [(ResNet, "test_resnet"), (ConvNeXt, "test_convnext")])
def test_a_convolutional_instance_is_timms(kind: Any, model: str) -> None:
    encoder = kind(FACTS, model=model).eval()
    both = batch(64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(encoder.tokenize(both)).instances, encoder.net(both["image"]))


@pytest.mark.parametrize(("kind", "model"), [(ViT, "test_vit"), (ResNet, "test_resnet"), (ConvNeXt, "test_convnext")])
def test_a_checkpoint_of_three_colours_starts_two_bands(tmp_path: Path, kind: Any, model: str) -> None:
    """Grey data look to the adapted network as they look to the original: its first layer's sum is kept."""
    original = timm.create_model(model, num_classes=0).eval()
    torch.save(original.state_dict(), tmp_path / "timm.pt")
    encoder = kind(FACTS, model=model).eval()
    note = initialise(encoder, str(tmp_path / "timm.pt"))
    assert "for 3 channels and is taken for 2" in note
    side = int(original.patch_embed.img_size[0]) if hasattr(original, "patch_embed") else 64
    grey = torch.randn(2, 1, side, side)
    both = {"image": grey.expand(-1, 2, -1, -1), "valid": torch.ones(2, side, side, dtype=torch.bool)}
    with torch.no_grad():
        wanted = original.forward_features(grey.expand(-1, 3, -1, -1))
        wanted = wanted[:, 1:].mean(1) if wanted.dim() == 3 else original.forward_head(wanted, pre_logits=True)
        torch.testing.assert_close(encoder(encoder.tokenize(both)).instances, wanted, rtol=1e-3, atol=1e-3)


def test_absent_bands_say_nothing_to_a_channel_vit() -> None:
    encoder = ChannelViT(FACTS).eval()
    both = batch(32)
    some = {**both, "bands": torch.tensor([[True, False], [True, True]])}
    other = {**some, "image": both["image"].clone()}
    other["image"][0, 1] += 5
    with torch.no_grad():
        one, two = encoder(encoder.tokenize(some)), encoder(encoder.tokenize(other))
    torch.testing.assert_close(one.instances, two.instances)
    assert int(encoder.tokenize(some).valid.sum()) == 3 * 16


def test_patches_of_mostly_nodata_are_not_valid_and_the_best_one_stays() -> None:
    encoder = ViT(FACTS, patch=8)
    both = batch(16)
    both["valid"][0, :, 5:] = False  # of the left patches 5 of 8 columns are valid
    both["valid"][1] = False
    both["valid"][1, 0, 15] = True
    tokens = encoder.tokenize(both)
    assert tokens.valid.tolist() == [[True, False, True, False], [False, True, False, False]]
    assert not tokens.values[0, 0].view(2, 8, 8)[:, :, 5:].any()


def test_models_that_there_are_not() -> None:
    with pytest.raises(UserError, match="timm makes no 'resnet19'"):
        ResNet(FACTS, model="resnet19")
    with pytest.raises(UserError, match="takes plain vision transformers"):
        ViT(FACTS, model="test_convnext")
    with pytest.raises(UserError, match="width must be a multiple of 32"):
        ViT(FACTS, width=100)
