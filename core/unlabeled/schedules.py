"""Values that change over a run, as pure functions of the step, so that a resumed run continues exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Clock", "warmup_cosine"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a run stands: `step` optimiser steps of `steps` are done, `epoch_steps` make an epoch."""

    step: int
    steps: int
    epoch_steps: int

    @property
    def epoch(self) -> int:
        return self.step // self.epoch_steps

    @property
    def fraction(self) -> float:
        return self.step / max(self.steps, 1)


def cosine(step: float, steps: float, start: float, end: float) -> float:
    """From start at step 0 to end at `steps`, along half a cosine (arXiv 1608.03983)."""
    where = min(max(step / steps, 0.0), 1.0) if steps > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * where)) / 2


def linear(step: float, steps: float, start: float, end: float) -> float:
    """From start at step 0 to end at `steps` and after, in a straight line."""
    return start + (end - start) * min(max(step / steps, 0.0), 1.0) if steps > 0 else end


def warmup_cosine(step: int, steps: int, peak: float, warmup: int, end: float = 0.0) -> float:
    """Linear from peak/warmup to peak over `warmup` steps (arXiv 1706.02677), then cosine to end at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(step - warmup, steps - warmup, peak, end)


def infinite(
    step: int, steps: int, peak: float, constant: float, end: float, warmup: int, cooldown: int, anneal: int
) -> float:
    """Warm-up to peak, cosine to a constant, the constant, and exponentially to `end` at last (arXiv 2503.02844).

    Up to the annealing nothing depends on `steps`, so that a run can be made longer. Without a cool-down the warm-up
    leads to the constant, and without either the constant comes first: that is how a later stage goes on.

    Args:
        warmup, cooldown, anneal: lengths of phases in steps; the first two come first where they leave too little.
        end: above 0.
    """
    if step < warmup:
        return (peak if cooldown else constant) * (step + 1) / warmup
    if step < warmup + cooldown:
        return cosine(step - warmup, cooldown, peak, constant)
    start = max(steps - anneal, warmup + cooldown)
    if step <= start or start >= steps:
        return constant
    return constant * math.exp(math.log(end / constant) * min((step - start) / (steps - start), 1.0))
