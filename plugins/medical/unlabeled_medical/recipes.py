"""Configurations that suit volumes; set by the papers named, never by labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {"epochs": 100, "batch_size": 16, "lr": 5e-4, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0},
    # OpenMind (arXiv 2412.17041) masks 75 % of blocks of 16³ too; standardised patches are MAE's (arXiv 2111.06377).
    "mae": {"lr": 1e-3, "weight_decay": 0.05, "beta2": 0.95, "set": {"random.ratio": 0.75}},
    # Volumes of one organ differ far less than photographs: few prototypes, few local crops.
    "dino": {
        "weight_decay": 0.04,
        "weight_decay_end": None,
        "set": {"prototypes.prototypes": 1024, "ema.momentum": 0.99, "views.local": 4},
    },
    "dinov2": {"set": {"views.local": 4}},
    "alice": {"set": {"prototypes.prototypes": 1024, "ema.momentum": 0.99}},
    "voco": {"set": {"ema.momentum": 0.99}},
    "swav": {"set": {"views.local": 4}},
    "lejepa": {"set": {"views.local": 4}},
}
