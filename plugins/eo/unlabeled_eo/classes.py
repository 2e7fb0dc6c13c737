"""Classes of pixels, from rasters beside the scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.errors import BrokenItem, UserError
from unlabeled_eo.rasters import Grid, probe, read
from unlabeled_eo.scenes import Opened
from unlabeled_eo.sources import find

IGNORED = 255  # the class of pixels that nobody labelled
EDGE = 1e-3  # pixels; a place between two, as middles of even patches are, is of the later one, however it was rounded


class Masks:
    """Class numbers of chips, from rasters of the same names on the same grids; 255 is not labelled.

    Raises:
        UserError: no raster is called as a scene.
    """

    def __init__(self, scenes: Sequence[Opened | str], source: str):
        found = {_stem(scene.name): scene.files[0].path for scene in find(source)}
        names = [_stem(one.scene.name) if isinstance(one, Opened) else "" for one in scenes]
        self.paths = [found.get(name) for name in names]
        if not any(self.paths):
            raise UserError(
                f"no raster of {source} is called as a scene: there {next(iter(found))!r}, here {names[0]!r}; give "
                "masks the names of their scenes"
            )

    def window(self, at: int, window: tuple[int, int, int, int], grid: Grid, whether: bool = True) -> Tensor | None:
        """[H, W] float32 of a window of a scene, on the scene's grid; None without a mask, empty unless `whether`.

        Raises:
            BrokenItem: the mask's grid is another.
        """
        path = self.paths[at]
        if path is None or not whether:
            return None if path is None else torch.zeros(0, 0)
        header = probe(path)
        if (header.height, header.width) != (grid.height, grid.width) or Grid.of(header).crs != grid.crs:
            raise BrokenItem(f"mask {path} is not on the grid of its scene ({grid.height} × {grid.width} pixels)")
        return torch.from_numpy(read(path, header, (1,), Grid.of(header), window)[0])


def _stem(name: str) -> str:
    return str(PurePath(name).with_suffix(""))


def nearest_class(mask: Tensor, places: NDArray[np.float64]) -> NDArray[np.str_]:
    """Names of classes [n] at places [n, 2], rows and columns in [0, 1]; "" where there is none."""
    sides = np.array(mask.shape)
    if not len(places):
        return np.empty(0, str)
    at = np.clip(np.floor(places * sides + EDGE).astype(np.int64), 0, sides - 1)
    found = mask.numpy()[at[:, 0], at[:, 1]].astype(np.int64)
    names: NDArray[np.str_] = np.where(found == IGNORED, "", found.astype(str))
    return names
