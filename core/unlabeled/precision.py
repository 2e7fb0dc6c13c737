"""Numbers of 16 bits where they are enough: bfloat16 autocast, beside float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

__all__ = ["PRECISIONS", "Precision", "autocast"]

Precision = Literal["fp32", "bf16"]

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
"""What autocast takes numbers to, by name."""


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """What forward passes run in; weights, gradients and losses stay float32."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype) if dtype else nullcontext()
