"""Encoders at a size that costs little, and those that are another's code at another size."""

from __future__ import annotations

from typing import Any

SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("tabular", "ft_transformer"): {"width": 32, "depth": 1},
    ("tabular", "mlp"): {"width": 16, "depth": 1},
    **{("graph", name): {"width": 8} for name in ("gcn", "gat", "gin", "sage")},
    ("graph", "gps"): {"width": 8, "depth": 1},
    ("medical", "vit"): {"depth": 1},
    ("medical", "resnet3d"): {"planes": 4},
    ("medical", "resunet"): {"planes": 8, "blocks": (1, 1)},
    ("medical", "unet"): {"planes": 8, "blocks": (1, 1)},
    ("medical", "swin_unetr"): {"depths": (1, 1, 1, 1)},
    ("audio", "vit"): {"width": 32, "depth": 1},
    ("audio", "frame_vit"): {"width": 32, "depth": 1},
    ("audio", "conformer"): {"width": 16, "depth": 1},
    ("audio", "cnn"): {"width": 16, "channels": 4},
    ("audio", "wav2vec2"): {"width": 16, "depth": 1, "channels": 4, "heads": 2, "positions": 16},
    ("eo", "vit"): {"width": 32, "depth": 1},
    ("eo", "channel_vit"): {"width": 32, "depth": 1},
    ("eo", "resnet"): {"model": "test_resnet"},
    ("eo", "convnext"): {"model": "test_convnext"},
}
"""Options by domain and encoder; others are as they come."""

OF_ANOTHER = {("eo", "vit_small_patch16"): "vit", ("medical", "vit_small"): "vit"}
"""Encoders that are another's class with other options, at a size that costs minutes."""
