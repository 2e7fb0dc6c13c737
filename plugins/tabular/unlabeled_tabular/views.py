"""Random views of table rows. New values come from the columns' own marginals, missing cells at their own rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from unlabeled.contract import Batch, Facts, Kind, View
from unlabeled.errors import UserError
from unlabeled.randomness import Draws
from unlabeled_tabular import schema


class Marginals:
    """Independent draws of whole rows from the facts' quantile grids and category frequencies."""

    def __init__(self, facts: Facts):
        numeric, categorical = schema.numeric(facts), schema.categorical(facts)
        grids = [schema.standardise(one, facts["numbers"], np.array(one["grid"])) for one in numeric]
        width = max(schema.sizes(facts), default=2)
        shares = np.zeros((len(categorical), width))
        for place, one in enumerate(categorical):
            shares[place, : len(one["frequencies"])] = one["frequencies"]
        ends = shares.cumsum(1)
        self._parts = {
            "grid": torch.from_numpy(np.array(grids, np.float32).reshape(len(numeric), schema.GRID)),  # [n_num, GRID]
            "missing": torch.tensor([one["missing"] for one in numeric], dtype=torch.float32),  # [n_num]
            "ends": torch.from_numpy(ends.astype(np.float32)),  # [n_cat, codes] cumulative frequencies
            "last": torch.from_numpy((shares > 0).cumsum(1).argmax(1)),  # [n_cat] the last code that occurs
        }
        self._moved: dict[torch.device, dict[str, Tensor]] = {}

    def columns(self) -> int:
        return len(self._parts["grid"]) + len(self._parts["ends"])

    def draw(self, draws: Draws, device: torch.device) -> Batch:
        """A batch in the reader's format, every cell from its column's marginal."""
        if device not in self._moved:
            self._moved[device] = {name: part.to(device) for name, part in self._parts.items()}
        part = self._moved[device]
        n_num, n_cat = len(part["grid"]), len(part["ends"])
        missing = draws.uniform(n_num) < part["missing"]
        place = draws.integers(0, schema.GRID, n_num)
        numbers = part["grid"].expand(len(draws), -1, -1).gather(2, place[..., None])[..., 0]
        chance = draws.uniform(n_cat).T.contiguous()  # [n_cat, B]
        codes = torch.searchsorted(part["ends"], chance, right=True).T
        return {
            "numbers": numbers.masked_fill(missing, 0.0),
            "missing": missing,
            "codes": torch.minimum(codes, part["last"]),  # rounding may leave the sum a hair below the chance
        }

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_moved": {}}


def replace(batch: Batch, new: Batch, where: Tensor) -> Batch:
    """The batch with cells of `new` where [B, N] says so."""
    n_num = batch["numbers"].shape[1]
    return {
        **batch,
        "numbers": torch.where(where[:, :n_num], new["numbers"], batch["numbers"]),
        "missing": torch.where(where[:, :n_num], new["missing"], batch["missing"]),
        "codes": torch.where(where[:, n_num:], new["codes"], batch["codes"]),
    }


def some(draws: Draws, columns: int, count: int) -> Tensor:
    """[B, N] bool: `count` columns of each row, uniformly."""
    return draws.uniform(columns).argsort(dim=1, stable=True).argsort(1) < count


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"{name} is a share: between 0 and 1, not {value}")
    return value


class TableView(View):
    """What all views share: every other column mirrored, the columns between them, or both.

    Numbers are mirrored about their mean, and known categories are exchanged, the most frequent for the rarest; a
    missing cell stays one. It is the diagonal case of GOAD's affine maps (arXiv 2005.02359), of mixed columns. What was
    mirrored shows in how columns go together.
    """

    transforms = 4

    def __init__(self, facts: Facts):
        n_num, sizes = len(schema.numeric(facts)), schema.sizes(facts)
        odd = torch.arange(n_num + len(sizes)) % 2
        self._odd, self._ends = (odd[:n_num], odd[n_num:]), torch.tensor(sizes, dtype=torch.int64) + schema.KNOWN - 1

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        numbers, codes = batch["numbers"], batch["codes"]
        turn_number, turn_code = ((which[:, None] >> odd.to(which.device)) & 1 == 1 for odd in self._odd)
        mirrored = self._ends.to(which.device) - codes
        return {
            **batch,
            "numbers": torch.where(turn_number & ~batch["missing"], -numbers, numbers),
            "codes": torch.where(turn_code & (codes >= schema.KNOWN), mirrored, codes),
        }


class Scarf(TableView):
    """Replaces round(share × columns) cells of a row by draws from their marginals (SCARF, arXiv 2106.15147).

    The paper corrupts one of two views; here every global view is, so that views are alike. Local views are
    round(local × columns) true cells and nothing else: noise in most of a small part leaves nothing to agree on.
    Plain and whole views are the data.
    """

    def __init__(self, facts: Facts, *, share: float = 0.6, local: float = 0.4):
        super().__init__(facts)
        self._marginals, self._share = Marginals(facts), _share("share", share)
        self._subset = ColumnSubset(facts, keep=local, local=local)

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("plain", "whole"):
            return batch
        if kind == "local":
            return self._subset.batch(batch, kind, draws)
        columns = self._marginals.columns()
        where = some(draws, columns, round(self._share * columns))
        return replace(batch, self._marginals.draw(draws, where.device), where)


class SwapNoise(TableView):
    """Replaces each cell by a draw from its marginal with the probability (VIME's corruption, NeurIPS 2020).

    Local views keep half as many cells. Plain and whole views are the data.
    """

    def __init__(self, facts: Facts, *, probability: float = 0.3):
        super().__init__(facts)
        self._marginals, self._probability = Marginals(facts), _share("probability", probability)

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("plain", "whole"):
            return batch
        probability = self._probability if kind == "global" else (1 + self._probability) / 2
        where = draws.chance(probability, self._marginals.columns())
        return replace(batch, self._marginals.draw(draws, where.device), where)


class ColumnSubset(TableView):
    """Keeps round(keep × columns) cells of a row, at least one; the others are not there (SubTab, arXiv 2110.04361).

    Local views keep fewer. Plain and whole views are the data.
    """

    def __init__(self, facts: Facts, *, keep: float = 0.75, local: float = 0.4):
        super().__init__(facts)
        self._columns, self._keep, self._local = len(facts["columns"]), _share("keep", keep), _share("local", local)

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("plain", "whole"):
            return batch
        keep = self._keep if kind == "global" else self._local
        return {**batch, "kept": some(draws, self._columns, max(1, round(keep * self._columns)))}


class Unchanged(TableView):
    """The data as they are, for methods that hide instead."""


VIEWS: Mapping[str, Callable[..., View]] = {
    "scarf": Scarf,
    "swap_noise": SwapNoise,
    "column_subset": ColumnSubset,
    "none": Unchanged,
}
