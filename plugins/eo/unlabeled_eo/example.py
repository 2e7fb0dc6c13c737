"""Tiny scenes shaped like real ones, for tests and the conformance kit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 40


def write(folder: Path) -> str:
    """Twelve two-band chips in decibels of uneven size, of two classes, one with nodata; and one that is damaged."""
    import rasterio

    chance = np.random.default_rng(0)
    for number in range(12):
        kind = "ship" if number % 2 else "sea"
        rows, columns = SIDE + number % 3, SIDE + number % 4
        power = chance.gamma(4, 0.25, (2, rows, columns)) * np.array([0.05, 0.01])[:, None, None]
        if kind == "ship":
            power[:, 15:25, 17:22] *= 200
        values = (10 * np.log10(power)).astype(np.float32)
        if number == 2:
            values[:, :, :9] = -9999
        path = folder / kind / f"{kind}_{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        how = {"driver": "GTiff", "height": rows, "width": columns, "count": 2, "dtype": "float32", "nodata": -9999}
        place = rasterio.Affine(10.0, 0.0, 500_000.0 + 1000 * number, 0.0, -10.0, 4_500_000.0)
        with rasterio.open(path, "w", crs="EPSG:32633", transform=place, **how) as file:
            file.write(values)
            file.descriptions = ("VV", "VH")
            file.units = ("dB", "dB")
    whole = (folder / "ship" / "ship_01.tif").read_bytes()
    (folder / "ship" / "broken_half.tif").write_bytes(whole[: len(whole) // 3])
    return str(folder)
