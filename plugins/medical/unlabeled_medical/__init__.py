"""Volumes for unlabeled: NIfTI, DICOM series, NRRD, MHA and npz stacks, as crops of a prepared cache."""

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
    from unlabeled_medical.readers import VolumeReader

    return {"volumes": VolumeReader}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    from unlabeled_medical.views import Crops

    return {"crops": Crops}


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    from unlabeled_medical.encoders import ViT, ViTSmall
    from unlabeled_medical.residual import ResNet3D, ResUNet
    from unlabeled_medical.swin import SwinUNETR
    from unlabeled_medical.unet import UNet

    staged = {"resnet3d": ResNet3D, "resunet": ResUNet, "unet": UNet, "swin_unetr": SwinUNETR}
    return {"vit": ViT, "vit_small": ViTSmall, **staged}


@hookimpl
def unlabeled_masks() -> Mapping[str, Callable[..., Mask]]:
    from unlabeled_medical.masks import Distort, TissueWindow

    return {"distort": Distort, "tissue": TissueWindow}


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled_medical.targets import HOG

    return {"hog": HOG}


@hookimpl
def unlabeled_methods() -> Mapping[str, Method]:
    from unlabeled_medical.methods import METHODS

    return METHODS


@hookimpl
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    from unlabeled_medical.recipes import RECIPES

    return RECIPES


@hookimpl
def unlabeled_commands() -> Mapping[str, Callable[[list[str]], None]]:
    from unlabeled_medical.commands import COMMANDS

    return COMMANDS


@hookimpl
def unlabeled_example(folder: Path) -> str:
    from unlabeled_medical.example import write

    return write(folder)
