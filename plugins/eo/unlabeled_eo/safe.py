"""Sentinel-1 SAFE products: digital numbers become radar cross-section by the product's own calibration table."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem, one_line
from unlabeled_eo.rasters import Window


def table_of(path: str) -> Path | None:
    """The calibration table of a measurement file, if the product has one."""
    file = Path(path)
    table = file.parent.parent / "annotation" / "calibration" / f"calibration-{file.stem}.xml"
    return table if table.exists() else None


@lru_cache(64)
def _sigma(table: Path) -> Any:
    """σ⁰'s calibration constant as a function of (line, pixel)."""
    from scipy.interpolate import RegularGridInterpolator

    try:
        vectors = ElementTree.parse(table).getroot().findall(".//calibrationVector")
        lines = np.array([int(one.findtext("line", "")) for one in vectors])
        pixels = np.array(vectors[0].findtext("pixel", "").split(), dtype=np.float64)
        values = np.array([one.findtext("sigmaNought", "").split() for one in vectors], dtype=np.float64)
        return RegularGridInterpolator((lines, pixels), values, bounds_error=False, fill_value=None)
    except (ElementTree.ParseError, IndexError, ValueError, OSError) as error:
        raise BrokenItem(f"its calibration table {table.name} cannot be read ({one_line(error)})") from None


def sigma_nought(table: Path, window: Window) -> NDArray[np.float32]:
    """[rows, columns] what digital numbers of a window are divided by, so that their squares are σ⁰.

    Raises:
        BrokenItem: the table is damaged.
    """
    row, column, rows, columns = window
    constant = _sigma(table)
    low, high = constant.grid[0][[0, -1]]
    at = np.clip(np.arange(row, row + rows), low, high)
    places = np.stack(np.meshgrid(at, np.arange(column, column + columns), indexing="ij"), -1)
    found: NDArray[np.float32] = constant(places).astype(np.float32)
    return found
