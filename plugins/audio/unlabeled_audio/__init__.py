"""Sound for unlabeled: speech, music and noises from wav, flac, ogg and mp3; a sample is a clip or part of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.hookspecs import hookimpl

if TYPE_CHECKING:
    from unlabeled.contract import Batch, Encoder, Reader, Sample, Target, View
    from unlabeled.methods import Method


@hookimpl
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    from unlabeled_audio.readers import AudioReader

    return {"audio": AudioReader}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    from unlabeled_audio.views import VIEWS

    return VIEWS


@hookimpl
def unlabeled_collate(samples: Sequence[Sample]) -> Batch | None:
    from unlabeled_audio.batches import collate

    return collate(samples)


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    from unlabeled_audio.encoders import ENCODERS

    return ENCODERS


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled_audio.targets import Cepstra, ConstantQ

    return {"mfcc": Cepstra, "cqt": ConstantQ}


@hookimpl
def unlabeled_methods() -> Mapping[str, Method]:
    from unlabeled_audio.methods import METHODS

    return METHODS


@hookimpl
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    from unlabeled_audio.recipes import RECIPES

    return RECIPES


@hookimpl
def unlabeled_commands() -> Mapping[str, Callable[[list[str]], None]]:
    from unlabeled_audio.commands import COMMANDS

    return COMMANDS


@hookimpl
def unlabeled_example(folder: Path) -> str:
    from unlabeled_audio.example import write

    return write(folder)
