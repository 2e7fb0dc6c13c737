"""Configurations that suit tables of a thousand to a million rows; set by their papers and by sense, not by labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROTOTYPES = {"view": "column_subset", "weight_decay": 1e-5, "weight_decay_end": None}
VIEWS = {"ema.momentum": 0.99, "views.local": 4}


def _few(term: str) -> dict[str, Any]:
    return {f"{term}.prototypes": 256, f"{term}.warm_temperature": 0.02, f"{term}.teacher_temperature": 0.02}


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {"epochs": 20, "batch_size": 256, "lr": 1e-3, "weight_decay": 1e-5, "warmup": 0.1},
    # Columns of a table are few and say much of each other: at .75 too little is left to predict from.
    "mae": {"weight_decay": 1e-5, "beta2": 0.999, "set": {"random.ratio": 0.5}},
    # T-JEPA, arXiv 2410.05016: scattered columns (nearness means nothing), small contexts.
    "ijepa": {
        "weight_decay": 1e-5,
        "weight_decay_end": None,
        "set": {
            "context_targets.shape": "scattered",
            "context_targets.scale": [0.2, 0.4],
            "context_targets.context": [0.2, 0.4],
        },
    },
    # Tables have far fewer kinds of rows than the web has of images, and rows differ less: with the paper's
    # temperatures (.04 … .07) the teacher says "any prototype" of every row, and stays there; so it nearly does with
    # half-noise SCARF views, and views that keep true cells only train it.
    "dino": {**PROTOTYPES, "set": {**_few("prototypes"), **VIEWS}},
    "ibot": {**PROTOTYPES, "set": {**_few("ibot"), **VIEWS}},
    "dinov2": {**PROTOTYPES, "set": {**_few("prototypes"), **_few("hidden_prototypes"), **VIEWS}},
    # A queue of another size than the papers': theirs is a small part of the data, and would hold each row here often.
    "moco_v2": {"set": {"infonce.queue": 4096}},
    "nnclr": {"set": {"infonce.neighbours": 4096}},
    "demo": {
        "data": "sklearn:digits/train",
        "test": "sklearn:digits/test",
        "label": "target",
        "method": "simclr",
        "encoder": {"name": "ft_transformer", "depth": 1, "width": 32},
        "training": {"epochs": 25, "batch_size": 128, "log_every": 50},
    },
}
