"""Configurations that suit clips of sound, from the papers of the methods; none of them chosen by test labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATST = {"weight_decay": 0.04, "weight_decay_end": 0.4, "view": "resized_crops"}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {"epochs": 100, "batch_size": 128, "lr": 5e-4, "weight_decay": 0.01, "warmup": 0.1},
    # AudioMAE, arXiv 2207.06405.
    "mae": {"weight_decay": 1e-4, "beta2": 0.95, "set": {"random.ratio": 0.8}},
    "audio_mae": {"weight_decay": 1e-4, "beta2": 0.95},
    # EAT, arXiv 2401.03497.
    "eat": {"weight_decay": 0.05, "beta2": 0.95},
    # ATST-Clip, arXiv 2204.12076: two segments, cropped and resized, decay up to .4.
    "atst": ATST,
    "atst_clip": ATST,
    # BYOL-A, arXiv 2103.06695; its mixing wants --view.background DATA beside.
    "byol_a": {"lr": 3e-4, "view": "resized_crops"},
    # HuBERT, arXiv 2106.07447: clusters of cepstra; the second iteration is --set token_ids.target=checkpoint.
    "hubert": {"set": {"token_ids.target": "mfcc"}},
    "dino": {"weight_decay": 0.01, "weight_decay_end": None, "set": {"prototypes.prototypes": 1024, "views.local": 4}},
}
