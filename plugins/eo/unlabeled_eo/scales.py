"""What a radar's numbers mean: linear power, amplitude or decibels; declared or read, never guessed."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from unlabeled.errors import UserError

Scale = Literal["linear", "amplitude", "db", "none"]
SCALES: tuple[Scale, ...] = ("linear", "amplitude", "db", "none")
"""linear: power (σ⁰, γ⁰, intensity). amplitude: its root. db: 10 log₁₀ of power. none: anything else (reflectances)."""

NOT_NEGATIVE: tuple[Scale, ...] = ("linear", "amplitude")

UNITS: dict[str, Scale] = {
    "db": "db",
    "decibel": "db",
    "decibels": "db",
    "power": "linear",
    "linear": "linear",
    "linear power": "linear",
    "intensity": "linear",
    "amplitude": "amplitude",
    "magnitude": "amplitude",
}
"""What files write into a band's unit or a tag, in small letters."""

LARGEST_DB, SMALLEST_DB = 100.0, -200.0
TINY = 1e-30  # power below this is -300 dB: it came from a zero


def convert(image: Tensor, have: Scale, want: Scale) -> Tensor:
    """Values of one scale in another; what has no logarithm becomes NaN, which readers take as nodata.

    Raises:
        UserError: one of the scales is none, and the other is not.
    """
    if have == want:
        return image
    if "none" in (have, want):
        raise UserError(
            f"data whose scale is {have} cannot become {want}: say what the files hold, as in --stored linear"
        )
    if have == "db":
        power = 10 ** (image / 10)
    else:
        power = image.square() if have == "amplitude" else image
    if want == "db":
        return torch.where(power > TINY, 10 * power.clamp(min=TINY).log10(), torch.nan)
    if want == "amplitude":
        return torch.where(power >= 0, power.clamp(min=0).sqrt(), torch.nan)
    return power


def contradiction(scale: Scale, least: float, most: float) -> str | None:
    """Why values cannot be of a scale, or None."""
    if scale in NOT_NEGATIVE and least < 0:
        return f"{scale} values are not negative, and these go down to {least:g}"
    if scale == "db" and (most > LARGEST_DB or least < SMALLEST_DB):
        return f"decibels lie within {SMALLEST_DB:g} … {LARGEST_DB:g}, and these go from {least:g} to {most:g}"
    return None


def range_of(image: Tensor, valid: Tensor, absent: Tensor) -> tuple[float, float]:
    """Least and largest of the values that count; 0 and 0 where there is none.

    Args:
        image: [C, H, W], some of it NaN or infinite perhaps.
        valid: [H, W] bool.
        absent: [C] bool.
    """
    least, most = (float(x) for x in image.aminmax())
    if math.isfinite(least) and math.isfinite(most) and bool(valid.all()):
        return least, most
    known = image[~absent][:, valid]
    known = known[known.isfinite()]
    return (float(known.min()), float(known.max())) if known.numel() else (0.0, 0.0)


def from_complex(image: Tensor, scale: Scale) -> Tensor:
    """Complex numbers as their amplitude, or the scale that is asked for."""
    return convert(image.abs(), "amplitude", "amplitude" if scale == "none" else scale)
