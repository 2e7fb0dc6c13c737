"""A domain of its own distribution for the tests of the loop: scikit-learn's handwritten digits, 8 × 8."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoded, Encoder, Facts, Kind, Reader, Sample, Tokens, View
from unlabeled.hookspecs import hookimpl
from unlabeled.layers import Place, Trunk, mean_of
from unlabeled.randomness import Draws


class Digits(Reader):
    """Source "digits"; "digits:3" has every third sample broken."""

    def __init__(self, source: str, *, facts: Facts | None = None, slow: bool = False):
        from sklearn.datasets import load_digits

        name, _, every = source.partition(":")
        assert name == "digits", source
        data = load_digits()
        self.pixels = torch.tensor(data.data, dtype=torch.float32) / 16
        self.digits = data.target
        self.every = int(every or 0)
        self.slow = slow or self.every > 0
        self.facts = facts or {"places": 64}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        if self.every and index % self.every == 0:
            raise OSError("truncated")
        return {"pixels": self.pixels[index]}

    def batch(self, indices: list[int]) -> Batch | None:
        return None if self.slow else {"pixels": self.pixels[torch.tensor(indices)]}

    def labels(self, spec: str) -> np.ndarray:
        return self.digits

    def raw(self) -> np.ndarray:
        return self.pixels.numpy()


class Noise(View):
    """Pixels of noise; knows quarter turns."""

    transforms = 4

    def __init__(self, facts: Facts, *, share: float = 0.3):
        self.share = share

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("whole", "plain"):
            return batch
        noise = draws.uniform(64)
        return {"pixels": torch.where(draws.chance(self.share, 64), noise, batch["pixels"])}

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        turned = [batch["pixels"].view(-1, 8, 8).rot90(k, (1, 2)).flatten(1) for k in range(4)]
        return {"pixels": torch.stack(turned)[which, torch.arange(len(which))]}


class Vit(Encoder):
    value_width, coord_width = 4, 2
    grid: Tensor

    def __init__(self, facts: Facts, *, width: int = 32, depth: int = 1, dropout: float = 0.1, explode: int = 0):
        super().__init__()
        self.width, self.embed_width, self.depth, self.explode, self.calls = width, width, depth, explode, 0
        self.enter, self.place = nn.Linear(4, width), Place(2, width)
        self.trunk = Trunk(width, depth, dropout=dropout)
        line = torch.linspace(0, 1, 4)
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1))

    def tokenize(self, batch: Batch) -> Tokens:
        patches = batch["pixels"].view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        valid = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        return Tokens(patches, self.grid.expand(len(patches), -1, -1), valid, {})

    def embed(self, tokens: Tokens) -> Tensor:
        return self.enter(tokens.values)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x, kept = self.trunk(x + self.place(tokens.coords), keep, layers=layers)
        self.calls += self.training
        if self.explode and self.calls >= self.explode:
            x = x * torch.nan
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)


@hookimpl
def unlabeled_readers() -> dict[str, type]:
    return {"digits": Digits}


@hookimpl
def unlabeled_views() -> dict[str, type]:
    return {"noise": Noise}


@hookimpl
def unlabeled_encoders() -> dict[str, type]:
    return {"vit": Vit}
