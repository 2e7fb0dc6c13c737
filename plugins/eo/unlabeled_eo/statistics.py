"""Statistics of bands, and what follows from them: standardised values, pictures, the table of `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Facts, Reader
from unlabeled.errors import UserError
from unlabeled_eo import styles
from unlabeled_eo.scales import from_complex
from unlabeled_eo.scenes import Opened

FITTED = 256  # chips that statistics are taken of
POINTS = 4096  # values of a band and chip that they are taken of


def real(image: Tensor, facts: Facts) -> Tensor:
    """What encoders see of a chip or batch [..., C, H, W], float32."""
    return from_complex(image, facts["scale"]) if image.is_complex() else image


def moments(facts: Facts) -> tuple[Tensor, Tensor]:
    """Means and deviations of the bands, [C, 1, 1] float32 each."""
    mean, std = (torch.tensor(facts[name], dtype=torch.float32)[:, None, None] for name in ("mean", "std"))
    return mean, std


def standardised(batch: Batch, facts: Facts, of: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """A chip or a batch [..., C, H, W] by the bands' means and deviations, zero where there is no value.

    Args:
        of: `moments`, where they are at hand on the batch's device.
    """
    image = real(batch["image"], facts)
    mean, std = of or (value.to(image.device) for value in moments(facts))
    return torch.where(there(batch), (image - mean) / std, 0.0)


def there(batch: Batch) -> Tensor:
    """[..., 1 or C, H, W] bool: where there is a value."""
    valid = batch["valid"][..., None, :, :]
    return valid & batch["bands"][..., None, None] if "bands" in batch else valid


def fit(reader: Reader, facts: Facts) -> dict[str, Any]:
    """Mean, deviation, 2nd and 98th percentile of every channel, styles, and every chip's negative share.

    Raises:
        UserError: not one chip can be read.
    """
    taken: list[list[Tensor]] = [[] for _ in facts["channels"]]
    negative, kept = list[float](), list[Tensor]()
    reasons: list[str] = []
    looked = reader.some(FITTED)
    for index in looked:
        try:
            sample = reader[index]
        except Exception as error:
            reasons.append(f"{reader.name(index)}: {error}")
            continue
        image = real(sample["image"], facts)
        flat = image.flatten(1)
        known = there(sample).expand_as(image).flatten(1)
        step = max(1, flat.shape[1] // POINTS)
        for channel, values, good in zip(taken, flat[:, ::step], known[:, ::step], strict=True):
            channel.append(values[good])
        if len(negative) % max(1, len(looked) // styles.KEPT) == 0 and len(kept) < styles.KEPT:  # the first among them
            kept.append(styles.amplitudes(styles.filled(image, there(sample))))
        negative.append(float((flat[known] < 0).float().mean()))
    if not negative:
        raise UserError(f"not one chip can be read; {reasons[0]}")
    every = [torch.cat(channel).double() for channel in taken]
    every = [values if len(values) else torch.zeros(1, dtype=torch.float64) for values in every]
    parts = torch.tensor([0.02, 0.98], dtype=torch.float64)
    low, high = zip(
        *(values[:: max(1, len(values) // 1_000_000)].quantile(parts).tolist() for values in every), strict=True
    )
    deviations = [float(values.std(correction=0)) for values in every]
    return {
        "mean": [_short(float(values.mean())) for values in every],
        "std": [_short(value) if value > 1e-12 else 1.0 for value in deviations],
        "low": [_short(x) for x in low],
        "high": [_short(x) for x in high],
        "styles": [[[[_short(x) for x in row] for row in band] for band in one] for one in torch.stack(kept).tolist()],
        "negative": negative,
    }


def _short(x: float) -> float:
    return float(f"{x:.7g}")


def pictures(batch: Batch, facts: Facts) -> list[Tensor]:
    """[H, W] in 0 … 1 of each chip's first channel, stretched from the data's 2nd to their 98th percentile."""
    image = real(batch["image"], facts)[:, 0]
    low, high = facts["low"][0], facts["high"][0]
    stretched = ((image - low) / max(high - low, 1e-12)).clamp(0, 1)
    return list(torch.where(there(batch)[:, 0], stretched, 0.0).cpu())


def summary(
    facts: Facts, scenes: Sequence[Opened | str], places: Sequence[object], sizes: NDArray[np.float64]
) -> list[dict[str, str]]:
    """A row for every channel; `places` say where scenes have the bands, or in words why they are of no use.

    `sizes` [n, 3] are rows, columns and valid shares of chips.
    """
    known = zip(scenes, places, strict=True)
    good = [one for one, place in known if isinstance(one, Opened) and not isinstance(place, str)]
    headers = [header for one in good for header in one.headers]
    pixels = sorted({f"{header.pixel:g}" for header in headers if header.placed})
    crs = sorted({header.crs or "none" for header in headers})
    nodata = 1 - float(sizes[:, 2].mean()) if len(sizes) else 0.0
    chips = f"{sizes[:, 0].min():g} … {sizes[:, 0].max():g} × {sizes[:, 1].min():g} … {sizes[:, 1].max():g}"
    return [
        {
            "band": name,
            "scale": facts["scale"],
            "mean ± std": f"{facts['mean'][at]:.4g} ± {facts['std'][at]:.4g}",
            "2 … 98 %": f"{facts['low'][at]:.4g} … {facts['high'][at]:.4g}",
            "pixel": _few(pixels) or "not said",
            "CRS": _few(crs),
            "scenes": f"{len(good):,}" + (f" of {len(scenes):,}" if len(good) < len(scenes) else ""),
            "chip sizes": chips,
            "no value": f"{nodata:.1%}",
        }
        for at, name in enumerate(facts["channels"])
    ]


def _few(names: Sequence[str], most: int = 3) -> str:
    short = [name if len(name) < 24 else name[:21] + "…" for name in names]
    return ", ".join(short[:most]) + (f" and {len(short) - most} more" if len(short) > most else "")
