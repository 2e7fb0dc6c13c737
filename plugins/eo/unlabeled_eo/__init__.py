"""Earth observation for unlabeled: radar and optical rasters; a sample is a chip of a scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.hookspecs import hookimpl

if TYPE_CHECKING:
    from unlabeled.contract import Encoder, Reader, Target, View
    from unlabeled.masking import Mask
    from unlabeled.methods import Method


@hookimpl
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    from unlabeled_eo.readers import EOReader

    return {"eo": EOReader}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    from unlabeled_eo.views import VIEWS

    return VIEWS


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    from unlabeled_eo.convolutions import ConvNeXt, ResNet
    from unlabeled_eo.vit import ChannelViT, ViT, ViTSmall

    return {
        "vit": ViT,
        "vit_small_patch16": ViTSmall,
        "channel_vit": ChannelViT,
        "resnet": ResNet,
        "convnext": ConvNeXt,
    }


@hookimpl
def unlabeled_masks() -> Mapping[str, Callable[..., Mask]]:
    from unlabeled_eo.masks import LocalWindow

    return {"local_window": LocalWindow}


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled_eo.targets import HOG, SarGradient

    return {"sar_gradient": SarGradient, "hog": HOG}


@hookimpl
def unlabeled_methods() -> Mapping[str, Method]:
    from unlabeled_eo.methods import METHODS

    return METHODS


@hookimpl
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    from unlabeled_eo.recipes import RECIPES

    return RECIPES


@hookimpl
def unlabeled_commands() -> Mapping[str, Callable[[list[str]], None]]:
    from unlabeled_eo.commands import COMMANDS

    return COMMANDS


@hookimpl
def unlabeled_example(folder: Path) -> str:
    from unlabeled_eo.example import write

    return write(folder)
