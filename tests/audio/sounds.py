"""Sounds that the tests of audio share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

RATE = 8000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, loud: float = 0.5) -> Any:
    """A sine, float32."""
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def chance(*shape: int) -> torch.Tensor:
    """Normal numbers, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
