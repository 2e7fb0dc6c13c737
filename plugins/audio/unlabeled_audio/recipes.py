"""Configurations that suit clips of sound, from the papers of the methods; none of them chosen by test labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {"epochs": 100, "batch_size": 128, "lr": 5e-4, "weight_decay": 0.01, "warmup": 0.1},
    # AudioMAE, arXiv 2207.06405: 80 % of the patches hidden, at random.
    "mae": {"weight_decay": 1e-4, "beta2": 0.95, "set": {"random.ratio": 0.8}},
    # EAT, arXiv 2401.03497: large inverse blocks, and the clip's mean beside the patches.
    "data2vec": {"set": {"block.ratio": 0.8}},
    # HuBERT, arXiv 2106.07447: spans of hidden frames, clusters of cepstra.
    "hubert": {"set": {"token_ids.target": "mfcc"}},
    "dino": {"weight_decay": 0.01, "weight_decay_end": None, "set": {"prototypes.prototypes": 1024, "views.local": 4}},
}
