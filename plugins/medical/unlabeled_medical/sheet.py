"""A contact sheet: what the reader sees of some volumes, and what a view makes of them, as one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Kind, Sample
from unlabeled.errors import BrokenItem, UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_medical.readers import VolumeReader
from unlabeled_medical.segmentation import normalised
from unlabeled_medical.views import Crops

TILE, GAP = 128, 4  # pixels
VIEWS: tuple[Kind, ...] = ("plain", "global", "global", "local")


def contact_sheet(reader: VolumeReader, view: Crops, path: Path, most: int = 8) -> int:
    """Write a row a volume: its middle slices across depth, height and width, then the middle of four random views.

    Returns:
        how many volumes are on it, the first that can be read.

    Raises:
        UserError: the file cannot be written.
    """
    from PIL import Image

    rows = []
    for index in range(len(reader)):
        try:
            rows.append(_row(reader[index], view, index))
        except BrokenItem:
            continue
        if len(rows) == most:
            break
    try:
        Image.fromarray(np.concatenate(rows)).save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path} ({error}); give the name of a .png in a folder that is there") from None
    return len(rows)


def _row(sample: Sample, view: Crops, index: int) -> NDArray[np.uint8]:
    volume = normalised(sample["image"], sample["levels"])[0]
    low, high = float(volume.min()), float(volume.max())
    stretch = sample["spacing"]
    tiles = []
    for axis in range(3):
        kept = [at for at in range(3) if at != axis]
        tiles.append(_tile(volume.select(axis, volume.shape[axis] // 2), low, high, stretch[kept]))
    for number, kind in enumerate(VIEWS):
        draws = Draws(sample_keys(0, number, torch.tensor([index])))
        crop = view.sample(sample, kind, draws.fork("sample"))
        batch = view.batch({name: value[None] for name, value in crop.items()}, kind, draws.fork("batch"))
        image = batch["image"][0, 0]
        tiles.append(_tile(image[len(image) // 2], low, high, stretch[1:]))
    return np.concatenate(tiles, 1)


def _tile(image: Tensor, low: float, high: float, spacing: Tensor) -> NDArray[np.uint8]:
    """A slice [h, w] at its true proportions in a square, upright: rows grow downward, and axes of RAS do not."""
    size = torch.tensor(image.shape) * spacing
    height, width = ((size / size.max() * TILE).round().long().clamp(min=1)).tolist()
    grey = ((image.flip(0) - low) / max(high - low, 1e-6)).clamp(0, 1) * 255
    made = F.interpolate(grey[None, None], (height, width), mode="nearest")[0, 0]
    tile = np.full((TILE + GAP, TILE + GAP), 32, np.uint8)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = made.round().byte().numpy()
    return tile
