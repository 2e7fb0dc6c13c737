"""Rasters and windows of them: GeoTIFF, COG, JPEG 2000, PNG, JPEG and .npy, whatever their grids."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem, one_line
from unlabeled_eo import torchgeo

OPEN = 64  # files that a process keeps open
CACHE = 64  # MB of decoded tiles that GDAL keeps, in place of a twentieth of the memory
Transform = tuple[float, float, float, float, float, float]
PLAIN: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    width: int
    height: int
    bands: tuple[str, ...]  # names, or "" for those that have none
    dtype: str
    crs: str | None = None
    transform: Transform = PLAIN  # of pixels to the CRS: a, b, c, d, e, f of rasterio's Affine
    nodata: float | None = None
    masked: bool = False  # some of its pixels may be nodata
    block: tuple[int, int] | None = None  # rows and columns of the tiles that it is stored in
    units: tuple[str, ...] = field(default=())
    tags: tuple[tuple[str, str], ...] = field(default=())

    @property
    def placed(self) -> bool:
        """Whether it lies somewhere on a map."""
        return self.crs is not None

    @property
    def turned(self) -> bool:
        """Whether its rows and columns are not those of the map."""
        return self.transform[1] != 0 or self.transform[3] != 0

    @property
    def pixel(self) -> float:
        """A pixel's side in units of the CRS, 1 without one."""
        a, b, _, d, e, _ = self.transform
        return float(np.sqrt(abs(a * e - b * d)))


@contextmanager
def quietly() -> Iterator[None]:
    """Files without a place on a map are no reason to warn."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def probe(path: str) -> Header:
    """The header of a file.

    Raises:
        BrokenItem: it cannot be read.
    """
    if path.endswith(".npy"):
        return _probe_npy(path)
    if path.startswith(torchgeo.PREFIX):
        bands, rows, columns = torchgeo.shape(path.rpartition("#")[0])
        return Header(columns, rows, bands, "float32")
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError

    try:
        with quietly():
            file = _open(path)
            crs = file.crs
            flags = file.mask_flag_enums
            colours = [colour.name for colour in file.colorinterp]
            return Header(
                width=file.width,
                height=file.height,
                bands=tuple(
                    (name or ("" if colour in ("gray", "undefined", "palette") else colour)).strip()
                    for name, colour in zip(file.descriptions, colours, strict=True)
                ),
                dtype=str(file.dtypes[0]),
                crs=crs.to_string() if crs else None,
                transform=tuple(file.transform)[:6],
                nodata=file.nodata,
                block=tuple(file.block_shapes[0]),
                masked=any(MaskFlags.all_valid not in one for one in flags[:1]),
                units=tuple((unit or "").strip() for unit in file.units),
                tags=tuple(sorted(file.tags().items())),
            )
    except (RasterioError, OSError, ValueError) as error:
        raise BrokenItem(_cause(path, error, "a raster")) from None


def _cause(path: str, error: Exception, kind: str) -> str:
    if "No such file" in str(error) and not os.path.exists(path):  # GDAL opens more than files: archives, URLs
        return "it does not exist; what a manifest names is relative to the manifest's folder"
    return f"it cannot be read as {kind} ({one_line(error)})"


def _probe_npy(path: str) -> Header:
    array = _npy(path)
    layout = _layout(array.shape)
    return Header(layout[2], layout[1], ("",) * layout[0], str(array.dtype))


def _layout(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Bands, rows and columns of an array: a third axis that is shortest is that of bands, first or last."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) == 3:
        return shape if shape[0] <= shape[2] else (shape[2], shape[0], shape[1])  # type: ignore[return-value]
    raise BrokenItem(f"it is an array of shape {shape}; a raster is [rows, columns] or [bands, rows, columns]")


@lru_cache(OPEN)
def _npy(path: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BrokenItem(_cause(path, error, ".npy")) from None
    if array.dtype.kind not in "biufc":
        raise BrokenItem(f"it is an array of {array.dtype}, which are no numbers")
    return array


def _open(path: str) -> Any:
    return _opened(path, os.getpid())


@lru_cache(OPEN)
def _opened(path: str, process: int) -> Any:
    """A file handle; a worker must not share its parent's, whose place in the file would move."""
    import rasterio

    _settings(process)
    with quietly():
        return rasterio.open(path)


@lru_cache(1)
def _settings(process: int) -> Any:
    """GDAL's, for the life of a process: little memory for tiles, and no word about what it can mend by itself."""
    import logging

    import rasterio

    logging.getLogger("rasterio._env").setLevel(logging.ERROR)
    settings = rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_DISABLE_READDIR_ON_OPEN="TRUE")
    settings.__enter__()
    return settings


@dataclass(frozen=True)
class Grid:
    """The pixels that a scene's bands are read on."""

    width: int
    height: int
    crs: str | None
    transform: Transform

    @staticmethod
    def of(header: Header) -> Grid:
        return Grid(header.width, header.height, header.crs, header.transform)

    def resampled(self, pixel: float) -> Grid:
        """The same place in pixels of another side."""
        a, b, c, d, e, f = self.transform
        now = float(np.sqrt(abs(a * e - b * d)))
        k = pixel / now
        width, height = (max(1, round(side / k)) for side in (self.width, self.height))
        return Grid(width, height, self.crs, (a * k, b * k, c, d * k, e * k, f))


Window = tuple[int, int, int, int]
"""Row, column, rows, columns on a grid."""


def read(path: str, header: Header, bands: tuple[int, ...], grid: Grid, window: Window) -> NDArray[Any]:
    """Bands (counted from 1) of a file on a grid's window, [C, rows, columns], with a last channel of what is valid.

    Raises:
        BrokenItem: it cannot be read, or has no place where the grid has one.
    """
    if path.endswith(".npy"):
        return _read_npy(path, header, bands, grid, window)
    if path.startswith(torchgeo.PREFIX):
        return _with_mask(torchgeo.read(path, bands, window), None)
    from rasterio.errors import RasterioError

    try:
        with quietly():
            return _read(_open(path), header, bands, grid, window)
    except (RasterioError, OSError, ValueError) as error:
        _opened.cache_clear()
        raise BrokenItem(f"{Path(path).name} cannot be read here ({one_line(error)})") from None


def _read(file: Any, header: Header, bands: tuple[int, ...], grid: Grid, window: Window) -> NDArray[Any]:
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window as Rectangle

    row, column, rows, columns = window
    scale = _scale(header, grid)
    if scale is None:
        if header.crs is None or grid.crs is None:
            raise BrokenItem("its grid is not that of the other bands, and one of them has no place on a map")
        from rasterio import Affine

        whole = {"crs": grid.crs, "transform": Affine(*grid.transform), "width": grid.width, "height": grid.height}
        with WarpedVRT(file, resampling=Resampling.bilinear, add_alpha=True, **whole) as warped:
            part = Rectangle(column, row, columns, rows)
            values = warped.read(list(bands), window=part)
            valid = warped.read(warped.count, window=part) > 0
            if header.masked:
                valid &= (warped.read_masks(list(bands), window=part) > 0).all(0)
    else:
        (down, over), (top, left) = scale
        part = Rectangle(left + column * over, top + row * down, columns * over, rows * down)
        how = {"window": part, "out_shape": (len(bands), rows, columns), "resampling": Resampling.bilinear}
        if (down, over) == (1, 1):
            how = {"window": part}
        values = file.read(list(bands), **how)
        valid = None
        if header.masked:  # of every band: a data set's own mask is valid where one of them is
            valid = (file.read_masks(list(bands), **{**how, "resampling": Resampling.nearest}) > 0).all(0)
    return _with_mask(values, valid)


def _with_mask(values: NDArray[Any], valid: NDArray[Any] | None) -> NDArray[Any]:
    """[C + 1, rows, columns] float32 or complex64."""
    kind = np.complex64 if values.dtype.kind == "c" else np.float32
    out = np.empty((len(values) + 1, *values.shape[1:]), kind)
    out[:-1] = values
    out[-1] = 1 if valid is None else valid
    return out


Pair = tuple[float, float]


def _scale(header: Header, grid: Grid) -> tuple[Pair, Pair] | None:
    """Rows and columns of the file to one of the grid, and where the grid begins; None: it must be warped."""
    if header.crs != grid.crs:
        return None
    if header.crs is None and grid.crs is None:  # nothing says where: they show the same place
        return (header.height / grid.height, header.width / grid.width), (0.0, 0.0)
    a, b, c, d, e, f = header.transform
    A, B, C, D, E, F = grid.transform
    size = a * e - b * d
    # The grid's pixels in the file's: inverse of the file's transform after the grid's.
    over, cross = (e * A - b * D) / size, (e * B - b * E) / size
    back, down = (a * D - d * A) / size, (a * E - d * B) / size
    left, top = (e * (C - c) - b * (F - f)) / size, (a * (F - f) - d * (C - c)) / size
    if abs(cross) > 1e-6 or abs(back) > 1e-6 or over <= 0 or down <= 0:
        return None
    inside = left > -0.01 and top > -0.01
    inside &= left + over * grid.width < header.width + 0.01 and top + down * grid.height < header.height + 0.01
    return ((_near(down), _near(over)), (_near(top), _near(left))) if inside else None


def _near(x: float) -> float:
    """The whole number that it nearly is."""
    return round(x) if abs(x - round(x)) < 1e-4 else x


def _read_npy(path: str, header: Header, bands: tuple[int, ...], grid: Grid, window: Window) -> NDArray[Any]:
    if (header.height, header.width) != (grid.height, grid.width):
        raise BrokenItem(
            f"it has {header.height} × {header.width} pixels and another band {grid.height} × {grid.width}; "
            ".npy files are not resampled"
        )
    array = _npy(path)
    array = array[None] if array.ndim == 2 else array if array.shape[0] <= array.shape[2] else np.moveaxis(array, 2, 0)
    row, column, rows, columns = window
    part = array[[number - 1 for number in bands], row : row + rows, column : column + columns]
    return _with_mask(part, None)


def seen(path: str, header: Header, rows: int, columns: int) -> NDArray[np.bool_] | None:
    """What is valid of a file, on a coarse grid [rows, columns]; None: all of it, as far as its header knows."""
    if not header.masked or path.endswith(".npy"):
        return None
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError

    try:
        with quietly():
            mask = _open(path).read_masks(1, out_shape=(rows, columns), resampling=Resampling.nearest)
    except (RasterioError, OSError, ValueError):  # reading it says so again, where it can be told of
        return None
    found: NDArray[np.bool_] = mask > 0
    return found
