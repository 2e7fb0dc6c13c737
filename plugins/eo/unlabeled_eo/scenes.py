"""A scene whose headers are read: which of its bands lie where, on which grid, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem
from unlabeled_eo import safe
from unlabeled_eo.listed import Scene
from unlabeled_eo.rasters import Grid, Header, Window, probe, read, seen
from unlabeled_eo.scales import UNITS, Scale

POLARISATIONS = ("VV", "VH", "HV", "HH")
LEFT_OUT = ("alpha",)  # bands that are no measurement


@dataclass(frozen=True)
class Place:
    """A band: file of the scene, and number in it, from 1."""

    file: int
    number: int


@dataclass(frozen=True)
class Opened:
    """What the headers of a scene's files say."""

    scene: Scene
    headers: tuple[Header, ...]
    bands: dict[str, Place]
    named: bool  # whether names are the files' own; else bands are numbers

    @property
    def complex(self) -> bool:
        return any(header.dtype.startswith("complex") for header in self.headers)

    def scale(self) -> Scale | None:
        """What the files say their numbers are, in a unit or a tag; None: nothing.

        Raises:
            BrokenItem: files of one scene differ.
        """
        if self.complex:
            return "amplitude"
        said = {UNITS[unit.lower()] for header in self.headers for unit in header.units if unit.lower() in UNITS}
        for header in self.headers:
            said |= {
                UNITS[value.lower()]
                for key, value in header.tags
                if key.lower() in ("scale", "units", "unit", "radiometric_scale") and value.lower() in UNITS
            }
        if len(said) > 1:
            raise BrokenItem(f"its files are of different scales ({', '.join(sorted(said))})")
        if said:
            return said.pop()
        return "amplitude" if self.scene.product and is_radar(list(self.bands)) else None  # digital numbers of SAFE

    def pick(self, wanted: Sequence[str]) -> list[Place | None]:
        """Where the wanted bands are; by position, where nothing names them and there are as many."""
        if not self.named and len(wanted) == len(self.bands) and not set(wanted) <= set(self.bands):
            return list(self.bands.values())
        return [self.bands.get(name) for name in wanted]

    def grid(self, places: Sequence[Place | None], pixel: float | None) -> Grid:
        """The finest grid of some bands; in pixels of `pixel` units where that is given."""
        used = [self.headers[place.file] for place in places if place]
        finest = max(used, key=lambda header: (header.placed, -header.pixel, header.width))
        grid = Grid.of(finest)
        return grid if pixel is None or not finest.placed else grid.resampled(pixel)

    def read(self, places: Sequence[Place | None], grid: Grid, window: Window, calibrate: bool) -> NDArray[Any]:
        """[C + 1, rows, columns]: bands, NaN those that are absent, then what is valid.

        Raises:
            BrokenItem: a file cannot be read.
        """
        files: dict[int, list[int]] = {}
        for at, place in enumerate(places):
            if place:
                files.setdefault(place.file, []).append(at)
        kind = np.complex64 if self.complex else np.float32
        out = np.full((len(places) + 1, *window[2:]), np.nan, kind)
        out[-1] = 1
        for number, rows in files.items():
            header = self.headers[number]
            path = self.scene.files[number].path
            numbers = tuple(place.number for at in rows if (place := places[at]))
            part = read(path, header, numbers, grid, window)
            table = safe.table_of(path) if calibrate and self.scene.product else None
            if table is not None:
                part[:-1] /= safe.sigma_nought(table, window)
            for row, values in zip(rows, part[:-1], strict=True):
                out[row] = values
            out[-1] *= part[-1]
        return out

    def seen(self, places: Sequence[Place | None], rows: int, columns: int) -> NDArray[np.bool_] | None:
        """What of the bands is valid, on a coarse grid; None: all, as far as headers say."""
        masks = [
            mask
            for number in sorted({place.file for place in places if place})
            if (mask := seen(self.scene.files[number].path, self.headers[number], rows, columns)) is not None
        ]
        whole: NDArray[np.bool_] | None = np.logical_and.reduce(masks) if masks else None
        return whole


def opened(scene: Scene) -> Opened:
    """Read the headers of a scene.

    Raises:
        BrokenItem: a file cannot be read, or none has a band.
    """
    headers, bands, named = [], dict[str, Place](), True
    for at, file in enumerate(scene.files):
        header = probe(file.path)
        headers.append(header)
        if file.band and len(header.bands) == 1:
            bands[file.band] = Place(at, 1)
            continue
        for number, name in enumerate(header.bands, 1):
            if name not in LEFT_OUT:
                named &= bool(name)
                bands[name.upper() or str(number)] = Place(at, number)
    if not bands:
        raise BrokenItem("it has no band but a mask")
    return Opened(scene, tuple(headers), bands, named)


def tried(scene: Scene) -> Opened | str:
    """The headers of a scene, or why they cannot be read."""
    try:
        return opened(scene)
    except BrokenItem as error:
        return str(error)


def is_radar(bands: Sequence[str]) -> bool:
    """Whether bands are polarisations."""
    return all(name.split(".")[0] in POLARISATIONS for name in bands)
