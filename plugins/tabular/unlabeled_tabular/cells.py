"""What encoders of table rows share: cells as tokens, as vectors, as something to predict."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from rtdl_num_embeddings import LinearEmbeddings, PeriodicEmbeddings, PiecewiseLinearEmbeddings
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoder, Facts, Predictor, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import Trunk
from unlabeled_tabular import schema

__all__ = ["CellEmbedding", "TableEncoder", "seen_values"]

Numbers = Literal["periodic", "piecewise", "linear"]
BINS = 32  # of piecewise-linear embeddings; the paper tunes 2 … 256
CLASSES = 256  # codes of a column that rebuilding tells apart; bounds the memory of predictions
NUMBER, CODE, MISSING = range(3)  # the values of a token


def tokenize(batch: Batch) -> Tokens:
    """Cells as tokens: V = 3 (number, code, missing), numbers before categories, P = 1 (place of the column)."""
    numbers, codes, missing = batch["numbers"], batch["codes"], batch["missing"]
    B, n_num = numbers.shape
    N = n_num + codes.shape[1]
    values = numbers.new_zeros(B, N, 3)
    values[:, :n_num, NUMBER], values[:, :n_num, MISSING] = numbers, missing.to(values.dtype)
    values[:, n_num:, CODE], values[:, n_num:, MISSING] = codes.to(values.dtype), (codes == 0).to(values.dtype)
    valid = batch.get("kept")
    if valid is None:
        valid = torch.ones(B, N, dtype=torch.bool, device=numbers.device)
    else:
        values = values.masked_fill(~valid[..., None], 0.0)
    coords = torch.arange(N, device=numbers.device, dtype=torch.float32) / max(N - 1, 1)
    return Tokens(values, coords.expand(B, N)[..., None], valid, {})


class CellEmbedding(nn.Module):
    """Cells [B, N, 3] as vectors [B, N, D], each column with weights of its own.

    Numbers by rtdl's embeddings (arXiv 2203.05556), categories by a table, a missing number by a vector of its
    column; a missing category is a code like any other. Codes that training never sees start, and stay, at zero.
    """

    offsets: Tensor
    largest: Tensor

    def __init__(self, facts: Facts, width: int, numbers: Numbers = "periodic", sigma: float = 0.25):
        super().__init__()
        self.n_num, sizes = len(schema.numeric(facts)), schema.sizes(facts)
        self.numbers = _number_embedding(facts, width, numbers, sigma) if self.n_num else None
        self.missing = nn.Parameter(torch.randn(self.n_num, width) * width**-0.5)
        self.codes = nn.Embedding(sum(sizes), width) if sizes else None
        starts = np.cumsum([0, *sizes])[:-1]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.register_buffer("largest", torch.tensor(sizes, dtype=torch.int64) - 1, persistent=False)
        self.column = nn.Parameter(torch.randn(self.n_num + len(sizes), width) * width**-0.5)
        if self.codes is not None:
            nn.init.normal_(self.codes.weight, std=width**-0.5)
            never = [s + c for s, one in zip(starts, schema.categorical(facts), strict=True) for c in _never(one)]
            with torch.no_grad():
                self.codes.weight[never] = 0.0

    def forward(self, values: Tensor, alter: Alteration | None = None) -> Tensor:
        content = self.content(values)
        return (content if alter is None else alter(content)) + self.column

    def content(self, values: Tensor) -> Tensor:
        """What is in the cells [B, N, D], before their columns are added."""
        parts = []
        if self.numbers is not None:
            cells = values[:, : self.n_num]
            known = self.numbers(cells[..., NUMBER])
            parts.append(torch.where(cells[..., MISSING, None] > 0.5, self.missing.to(known.dtype), known))
        if self.codes is not None:
            codes = values[:, self.n_num :, CODE].long().clamp(min=0).minimum(self.largest)
            parts.append(self.codes(codes + self.offsets))
        return torch.cat([part.to(self.column.dtype) for part in parts], 1)


def _never(column: schema.ColumnFacts) -> list[int]:
    return [code for code, share in enumerate(column["frequencies"][: schema.KNOWN]) if share == 0]


def _number_embedding(facts: Facts, width: int, kind: Numbers, sigma: float) -> nn.Module:
    count = len(schema.numeric(facts))
    if kind == "periodic":
        embedding: nn.Module = PeriodicEmbeddings(
            count, width, frequency_init_scale=sigma, activation=False, lite=False
        )
    elif kind == "piecewise":
        embedding = PiecewiseLinearEmbeddings(_edges(facts), width, activation=False, version="B")
    elif kind == "linear":
        embedding = LinearEmbeddings(count, width)
    else:
        raise UserError(f"numbers cannot be embedded {kind!r}; there are: periodic, piecewise, linear")
    return embedding


def _edges(facts: Facts) -> list[Tensor]:
    """Rising bin edges of each number at even ranks, in standardised units; at least two bins (rtdl warns of one)."""
    edges = []
    for one in schema.numeric(facts):
        real = np.array([one["min"], *one["grid"][schema.GRID // BINS // 2 :: schema.GRID // BINS], one["max"]])
        rising = np.unique(schema.standardise(one, facts["numbers"], real))
        if len(rising) < 3:
            rising = np.linspace(rising[0], max(rising[-1], rising[0] + 1), 3, dtype=np.float32)
        edges.append(torch.from_numpy(rising))
    return edges


class MixedContent:
    """How cells are compared: about 1 where a prediction knows nothing, for numbers and categories alike.

    A prediction has C = 2 + K slots: the number, the logit of "this number is missing", and the logits of codes
    (0 missing, 1 rare or unseen, 2 … the most frequent ones, at most 256 in all; rarer ones count as 1). K is
    that of the largest column and columns share the slots, so that a prediction of B × N × C stays small with
    10,000 categories and with 500 columns; those beyond a column's own codes take no part.

        number:    (x̂ − x)², 0 where x is missing; in columns with missing training cells it is averaged with
                   BCE(missing) / log 2
        category:  CE(code) / log(codes of the column)
    """

    def __init__(self, facts: Facts):
        self.n_num = len(schema.numeric(facts))
        self._codes = torch.tensor([min(size, CLASSES) for size in schema.sizes(facts)], dtype=torch.int64)
        self._gaps = torch.tensor([one["missing"] > 0 for one in schema.numeric(facts)], dtype=torch.bool)
        self.width = 2 + int(max(self._codes.tolist(), default=0))

    def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:  # [B, N, C] -> [B, N]
        prediction, values = prediction.float(), tokens.values
        split = self.n_num
        numbers = self._number_loss(prediction[:, :split], values[:, :split])
        codes = self._code_loss(prediction[:, split:, 2:], values[:, split:, CODE].long())
        return torch.cat([numbers, codes], 1)

    def _number_loss(self, prediction: Tensor, values: Tensor) -> Tensor:
        missing = (values[..., MISSING] > 0.5).float()
        error = (prediction[..., 0] - values[..., NUMBER]).square() * (1 - missing)
        gap = F.binary_cross_entropy_with_logits(prediction[..., 1], missing, reduction="none") / math.log(2)
        return torch.where(self._gaps.to(error.device), (error + gap) / 2, error)

    def _code_loss(self, logits: Tensor, codes: Tensor) -> Tensor:
        B, n_cat, K = logits.shape
        if n_cat == 0:
            return logits.new_zeros(B, 0)
        count = self._codes.to(logits.device)  # [n_cat]
        codes = torch.where((codes >= 0) & (codes < count), codes, 1)
        logits = logits.masked_fill(torch.arange(K, device=logits.device) >= count[:, None], -torch.inf)
        error = F.cross_entropy(logits.reshape(-1, K), codes.reshape(-1), reduction="none").view(B, n_cat)
        return error / count.log()


class TablePredictor(Predictor):
    """A transformer over seen and wanted columns; each has a query and an output layer of its own.

    The column is read off `tokens.coords`, the only thing known of a wanted cell.
    """

    def __init__(self, in_width: int, columns: int, out_width: int, width: int, depth: int):
        super().__init__()
        self.columns = columns
        self.enter = nn.Linear(in_width, width)
        self.place = nn.Parameter(torch.randn(columns, width) * width**-0.5)
        self.trunk = Trunk(width, depth)
        self.weight = nn.Parameter(torch.empty(columns, width, out_width))
        self.bias = nn.Parameter(torch.zeros(columns, out_width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        entered = self.enter(latent)
        x = torch.where((seen & ~wanted)[..., None], entered, 0)
        column = (tokens.coords[..., 0] * (self.columns - 1)).round().long()
        x, _ = self.trunk(x + self.place[column].to(x.dtype), seen | wanted)
        out: Tensor = torch.einsum("bnd,ndc->bnc", x, self.weight.to(x.dtype)) + self.bias.to(x.dtype)
        return out


class TableEncoder(Encoder):
    """What both encoders answer alike."""

    value_width, coord_width = 3, 1
    cells: CellEmbedding

    def __init__(self, facts: Facts, width: int):
        super().__init__()
        if width < 1:
            raise UserError(f"an encoder's width must be at least 1, not {width}")
        self.facts, self.width, self.columns = facts, width, len(facts["columns"])
        self.content = MixedContent(facts)

    def tokenize(self, batch: Batch) -> Tokens:
        return tokenize(batch)

    def embed(self, tokens: Tokens) -> Tensor:
        return self.cells.content(tokens.values)

    def predictor(self, out_width: int, width: int, depth: int) -> Predictor:
        return TablePredictor(self.width, self.columns, out_width, width, depth)


def seen_values(tokens: Tokens, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """The values with nothing left at places that may not be seen, and those that may: [B, N, 3], [B, N] bool."""
    seen = tokens.valid if hidden is None else tokens.valid & ~hidden
    return torch.where(seen[..., None], tokens.values, 0), seen
