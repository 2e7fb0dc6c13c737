"""Rasters on disk, tiny ones made here, and the shared ones where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def tif(tmp_path: Path) -> Callable[..., Path]:
    """tif("a.tif", array [C, H, W], pixel=10, west=0, north=0, crs=..., names=..., units=..., **profile) writes one."""

    def write(
        name: str,
        array: np.ndarray[Any, Any],
        *,
        pixel: float = 10.0,
        west: float = 500_000.0,
        north: float = 4_500_000.0,
        crs: str | None = "EPSG:32633",
        transform: tuple[float, ...] | None = None,
        names: tuple[str, ...] = (),
        units: tuple[str, ...] = (),
        **profile: Any,
    ) -> Path:
        import rasterio

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = array[None] if array.ndim == 2 else array
        place = rasterio.Affine(*(transform or (pixel, 0.0, west, 0.0, -pixel, north)))
        if crs:
            profile |= {"crs": crs, "transform": place}
        how = {"count": len(array), "height": array.shape[1], "width": array.shape[2]}
        how["driver"] = profile.pop("driver", "GTiff")
        from unlabeled_eo.rasters import quietly

        with quietly(), rasterio.open(path, "w", dtype=profile.pop("dtype", array.dtype), **how, **profile) as file:
            file.write(array)
            if names:
                file.descriptions = names
            if units:
                file.units = units
        return path

    return write


@pytest.fixture
def noise() -> np.ndarray[Any, Any]:
    """[2, 48, 40] power with speckle."""
    return np.random.default_rng(0).gamma(2, 0.5, (2, 48, 40)).astype(np.float32)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example: twelve chips in decibels and a broken one."""
    from unlabeled_eo.example import write

    return write(tmp_path_factory.mktemp("scenes"))
