"""What is measured of a volume once, and how its intensities become an encoder's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem

Intensity = Literal["auto", "ct", "zscore", "percentile", "binary", "none"]
SAMPLED = 2_000_000  # voxels that statistics look at
POINTS = 64  # foreground voxels that are kept to aim crops at
AIR = -900  # below it values are Hounsfield units
FAR = 5.0  # deviations at which z-scores are cut


@dataclass(frozen=True)
class Statistics:
    """Of each channel; foreground is what is above the channel's mean (TorchIO's rule)."""

    least: list[float]
    most: list[float]
    mean: list[float]  # over the foreground
    std: list[float]
    low: list[float]  # percentile .5 of all
    high: list[float]  # percentile 99.5
    binary: bool  # two values in all
    foreground: list[list[int]]  # [POINTS, 3] voxels


def statistics(array: NDArray[Any]) -> Statistics:
    """Statistics of a volume [C, D, H, W].

    Raises:
        BrokenItem: every channel is constant.
    """
    stride = max(1, round((array[0].size / SAMPLED) ** (1 / 3)))
    part = array[:, ::stride, ::stride, ::stride].astype(np.float32)
    flat = part.reshape(len(part), -1)
    least, most = array.min((1, 2, 3)), array.max((1, 2, 3))
    if (least == most).all():
        raise BrokenItem(f"every voxel is {least[0]:g}; there is nothing to learn from")
    bright = flat > flat.mean(1, keepdims=True)
    inside = [values[kept] if kept.any() else values for values, kept in zip(flat, bright, strict=True)]
    places = np.flatnonzero(bright.any(0))
    places = places if len(places) else np.arange(flat.shape[1])
    chosen = places[np.linspace(0, len(places) - 1, POINTS).round().astype(np.int64)]
    points = np.stack(np.unravel_index(chosen, part.shape[1:]), 1) * stride
    low, high = np.percentile(flat, [0.5, 99.5], axis=1)
    two = all(bool(((x == a) | (x == b)).all()) for x, a, b in zip(array, least, most, strict=True))
    return Statistics(
        least=_floats(least),
        most=_floats(most),
        mean=[float(x.mean(dtype=np.float64)) for x in inside],
        std=[float(x.std(dtype=np.float64)) for x in inside],
        low=_floats(low),
        high=_floats(high),
        binary=two,
        foreground=points.tolist(),
    )


def _floats(values: NDArray[Any]) -> list[float]:
    return [float(x) for x in values]


def decide(about: Sequence[Mapping[str, Any]]) -> str:
    """The intensity that `auto` stands for: binary where all volumes are masks, CT where DICOM says so or the values
    reach down to air, else the z-score."""
    if all(one["binary"] for one in about):
        return "binary"
    modalities = {one["modality"] for one in about if one["modality"]}
    if modalities:
        return "ct" if modalities == {"CT"} else "zscore"
    reach = np.mean([min(one["least"]) <= AIR for one in about])
    return "ct" if reach > 0.5 else "zscore"


def levels(intensity: str, window: Sequence[float], about: Mapping[str, Any]) -> NDArray[np.float32]:
    """[C, 5] low, high, shift, scale, floor: a voxel x becomes (clip(x, low, high) − shift) / scale, at least floor.

    ct: the window to −1 … 1. zscore: over the foreground, cut at 5 deviations. percentile: .5 … 99.5 to −1 … 1.
    binary: the two values to 0 and 1. none: as stored.
    """
    least, most, mean, std, low, high = (
        np.array(about[name]) for name in ("least", "most", "mean", "std", "low", "high")
    )
    if intensity == "ct":
        low, high = np.full_like(least, window[0]), np.full_like(most, window[1])
    elif intensity == "zscore":
        low, high = mean - FAR * std, mean + FAR * std
    elif intensity != "percentile":
        low, high = least, most
    shift, scale = {
        "zscore": (mean, std),
        "binary": (least, most - least),
        "none": (np.zeros_like(least), np.ones_like(most)),
    }.get(intensity, ((low + high) / 2, (high - low) / 2))
    scale = np.where(scale > 0, scale, 1.0)  # a channel that is constant becomes 0
    floor = (np.clip(least, low, high) - shift) / scale
    return np.stack([low, high, shift, scale, floor], 1).astype(np.float32)
