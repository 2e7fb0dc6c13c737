"""What all tests share: few threads, a fixed seed, hypothesis without deadlines."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("here", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("here")
torch.set_num_threads(1)  # tensors are tiny: threads cost more than they bring


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
