"""Numbers that were measured a little differently."""

import torch

from unlabeled.contract import View
from unlabeled.errors import UserError


class Noise(View):
    """Gaussian noise on the numbers that are there; local views are also without about half of their columns."""

    def __init__(self, facts, *, sigma: float = 0.1):
        if sigma < 0:
            raise UserError(f"sigma is a standard deviation: 0 or more, not {sigma}")
        self.columns, self.sigma = len(facts["columns"]), sigma

    def batch(self, batch, kind, draws):
        if kind in ("plain", "whole"):
            return batch
        numbers = batch["numbers"]
        moved = numbers + self.sigma * draws.fork("noise").normal(numbers.shape[1])
        view = {**batch, "numbers": torch.where(batch["missing"], numbers, moved)}
        if kind == "local":
            order = draws.fork("kept").uniform(self.columns)
            view["kept"] = order <= order.median(1, keepdim=True).values
        return view
