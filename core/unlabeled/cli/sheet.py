"""A contact sheet: samples as they are, and the views that training would make of them, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unlabeled.contract import Kind, Reader, View
from unlabeled.data.batches import finish, read_views
from unlabeled.errors import UserError
from unlabeled.files import write_whole
from unlabeled.pictures import Picture, drawn, png
from unlabeled.plugins import Registry
from unlabeled.randomness import sample_keys

COLUMNS: dict[Kind, int] = {"whole": 1, "plain": 1, "global": 2, "local": 2}
GAP = 4  # pixels between pictures
GREY = 96  # of what is no picture


def write_sheet(path: Path, reader: Reader, view: View, registry: Registry, samples: int = 8) -> None:
    """A row for each of some samples, evenly spread: whole, plain, two global and two local views. Writes PNG.

    Raises:
        UserError: the reader cannot draw its samples, or the file is no .png.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"the contact sheet is a PNG picture: call it {path.with_suffix('.png')}")
    indices = torch.tensor(reader.some(samples))
    keys = sample_keys(0, 0, indices)
    step = finish(read_views(reader, view, COLUMNS, indices, keys, torch.arange(len(reader)), registry), view)
    columns: list[Sequence[Picture]] = []
    for kind, count in COLUMNS.items():
        grey = drawn(reader, step.views[kind], "leave out --sheet")
        if grey is None:
            raise UserError(f"the reader of domain {registry.domain!r} draws no pictures; leave out --sheet")
        columns += [grey[at * len(indices) : (at + 1) * len(indices)] for at in range(count)]
    image = _tiled(columns)
    write_whole(path, lambda file: file.write(png(image)))


def _tiled(columns: list[Sequence[Picture]]) -> Picture:
    """Pictures [h, w] of columns side by side, each column as wide as its widest, each row as high as its highest."""
    heights = [max(column[row].shape[0] for column in columns) for row in range(len(columns[0]))]
    widths = [max(picture.shape[1] for picture in column) for column in columns]
    image = np.full((sum(heights) + GAP * (len(heights) + 1), sum(widths) + GAP * (len(widths) + 1)), GREY, np.uint8)
    left = GAP
    for column, width in zip(columns, widths, strict=True):
        top = GAP
        for picture, height in zip(column, heights, strict=True):
            image[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            top += height + GAP
        left += width + GAP
    return image
