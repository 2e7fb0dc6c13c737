"""Crops, scale, noise and channels that fall silent."""

import torch

from unlabeled.contract import View


class Jitter(View):
    """A crop of a multiple of 16 samples, each channel scaled, noise added, some channels zero."""

    transforms = 2  # as it is, and with its sign turned, for methods that predict which

    def __init__(self, facts, *, scale: float = 0.2, noise: float = 0.1, drop: float = 0.1):
        self.length, self.scale, self.noise, self.drop = facts["length"], scale, noise, drop

    def sample(self, sample, kind, draws):
        if kind in ("plain", "whole"):
            return sample
        size = max(16, int(self.length * (0.75 if kind == "global" else 0.25)) // 16 * 16)
        start = int(draws.integers(0, self.length - size + 1, 1))
        return {"signal": sample["signal"][:, start : start + size]}

    def batch(self, batch, kind, draws):
        signal = batch["signal"]  # [B, C, T]
        if kind in ("plain", "whole"):
            return batch
        C, T = signal.shape[1:]
        signal = signal * (1 + self.scale * draws.fork("scale").normal(C, 1))
        signal = signal + self.noise * draws.fork("noise").normal(C, T)
        return {"signal": signal.masked_fill(draws.fork("drop").chance(self.drop, C, 1), 0)}

    def transform(self, batch, which):
        return {"signal": torch.where(which[:, None, None] == 1, -batch["signal"], batch["signal"])}
