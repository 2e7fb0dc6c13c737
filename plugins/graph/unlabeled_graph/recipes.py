"""Configurations that suit graphs, from the papers of the methods; none of them chosen by test labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

THIRD = {"name": "drop", "edges": 0.3, "features": 0.3}
UNLIKE = {"name": "drop", "edges": (0.2, 0.4), "features": (0.3, 0.4)}
STILL = {"weight_decay": 0.0, "weight_decay_end": None}
FEW = {"ema.momentum": 0.99, "views.local": 2}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # An epoch of a graph that is taken whole is one step.
    "default": {"epochs": 200, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0},
    # CCA-SSG, arXiv 2106.12484, on Cora: a constant rate, edges .4, features .1, no head.
    "cca_ssg": {"epochs": 50, "lr_end": 1e-3, "view": {"name": "drop", "edges": 0.4, "features": 0.1}},
    # GRACE, arXiv 2006.04131, on Cora: edges .2 and .4 of the two views, features .3 and .4.
    "grace": {"optimizer": "adam", "lr": 5e-4, "lr_end": 5e-4, "weight_decay": 1e-5, "view": UNLIKE},
    "bgrl": {"epochs": 600, "lr": 5e-4, "weight_decay": 1e-5, "warmup": 0.1, "view": THIRD},
    # GraphMAE, arXiv 2205.10803, on Cora: --encoder gat; its decoder is as wide as the encoder.
    "graphmae": {"optimizer": "adam", "epochs": 1500, "weight_decay": 2e-4, "set": {"rebuild.width": 512}},
    "graphmae2": {"optimizer": "adam", "epochs": 1000, "set": {"rebuild.width": 512}},
    "mae": {"weight_decay": 0.0, "beta2": 0.999, "set": {"random.ratio": 0.5}},
    # Nodes near in coords are alike in structure, not neighbours: targets are scattered.
    "ijepa": {**STILL, "set": {"context_targets.shape": "scattered", "context_targets.context": [0.4, 0.6]}},
    # Nodes of one graph are no samples with tokens of their own.
    "data2vec": {"set": {"latent.summary": 0.0}},
    # Prototypes in proportion to the classes of graphs, and few local views, each of which is a copy of the graph.
    "dino": {**STILL, "set": {"prototypes.prototypes": 256, **FEW}},
    "ibot": {**STILL, "set": {"ibot.prototypes": 256, **FEW}},
    "dinov2": {**STILL, "set": {"prototypes.prototypes": 256, "hidden_prototypes.prototypes": 256, **FEW}},
}
