"""Configurations that suit chips, from the papers of the methods; none of them chosen by test labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {"epochs": 100, "batch_size": 128, "lr": 5e-4, "weight_decay": 0.05, "warmup": 0.1},
    # SAR-JEPA, arXiv 2311.15153; SARATR-X, 2405.09365, has three scales.
    "saratr_x": {"set": {"rebuild.target": "sar_gradient"}},
    # CROMA, arXiv 2311.00566: each view is of one sensor; --encoder channel_vit knows which bands it lacks.
    "croma": {"view": "sensors"},
    # OceanSAR, arXiv 2504.06962, trains DINO on Sentinel-1; prototypes fit small data.
    "dino": {"weight_decay": 0.04, "weight_decay_end": 0.4, "set": {"prototypes.prototypes": 1024, "views.local": 4}},
    "dinov2": {
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "set": {"prototypes.prototypes": 1024, "hidden_prototypes.prototypes": 1024, "views.local": 4},
    },
    "moco_v3": {"weight_decay": 0.1},
}
