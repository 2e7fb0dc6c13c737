"""A whole tiny domain that keeps every promise: uneven signals, one damaged file, encoders of four kinds.

The tests of the conformance kit break it in one place at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.contract import (
    Alteration,
    Batch,
    Encoded,
    Encoder,
    Facts,
    Kind,
    Predictor,
    Reader,
    Sample,
    Tokens,
    View,
)
from unlabeled.data.collate import padded
from unlabeled.errors import BrokenItem
from unlabeled.hookspecs import hookimpl
from unlabeled.layers import Place, Trunk, mean_of
from unlabeled.randomness import Draws

PATCH = 4


class Strips(Reader):
    """A folder of .npy signals [T]; facts: mean and standard deviation of all values."""

    def __init__(self, source: str, *, facts: Facts | None = None):
        self.paths = sorted(Path(source).glob("*.npy"))
        self.facts = facts or self._fit()

    def _fit(self) -> dict[str, Any]:
        values = np.concatenate([np.load(path) for path in self.paths if "broken" not in path.name])
        return {"mean": float(values.mean()), "std": float(values.std())}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        try:
            signal = np.load(self.paths[index])
        except (ValueError, EOFError) as error:
            raise BrokenItem(str(error)) from None
        return {"signal": torch.from_numpy(signal), "rate": torch.tensor(100.0)}

    def name(self, index: int) -> str:
        return self.paths[index].name


class Crops(View):
    """Random crops (sample stage) and gain (batch stage); knows the signal upside down."""

    transforms = 2

    def __init__(self, facts: Facts, *, gain: float = 0.2):
        self.facts, self.gain = facts, gain

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        signal = sample["signal"]
        share = {"global": 0.8, "local": 0.4}.get(kind, 1.0)
        length = max(2 * PATCH, int(share * len(signal)))
        start = int(draws.integers(0, len(signal) - length + 1)[0]) if length < len(signal) else 0
        return {**sample, "signal": signal[start : start + length].clone()}

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("whole", "plain"):
            return batch
        gain = 1 + self.gain * draws.normal(1).to(batch["signal"].device)
        return {**batch, "signal": batch["signal"] * gain}

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        return flip(batch, which)


def flip(batch: Batch, which: Tensor) -> Batch:
    """The signal with the other sign, where which is 1."""
    return {**batch, "signal": torch.where(which[:, None] == 1, -batch["signal"], batch["signal"])}


def pad(samples: Sequence[Sample]) -> Batch:
    """Signals of different length, zeros after their ends."""
    length = torch.tensor([len(sample["signal"]) for sample in samples])
    signal = padded([sample["signal"] for sample in samples])
    return {"signal": signal, "length": length, "rate": torch.stack([sample["rate"] for sample in samples])}


class StripViT(Encoder):
    """Patches of a signal through a transformer that drops what is hidden."""

    value_width, coord_width, depth = PATCH, 1, 2

    def __init__(self, facts: Facts, *, width: int = 32):
        super().__init__()
        self.facts, self.width, self.embed_width = facts, width, width
        self.enter, self.place = nn.Linear(PATCH, width), Place(1, width)
        self.rate = nn.Linear(1, width)
        self.trunk = Trunk(width, self.depth)

    def cut(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B, N, V], coords [B, N, 1], valid [B, N]."""
        signal = (batch["signal"] - self.facts["mean"]) / self.facts["std"]
        signal = torch.where(torch.arange(signal.shape[1]) < batch["length"][:, None], signal, 0)
        values = nn.functional.pad(signal, (0, -signal.shape[1] % PATCH)).unflatten(1, (-1, PATCH))
        place = torch.arange(values.shape[1]) * PATCH
        valid = place < batch["length"][:, None]
        coords = (place / batch["length"][:, None]).clamp(max=1)[..., None]
        return values, coords, valid

    def tokenize(self, batch: Batch) -> Tokens:
        return Tokens(*self.cut(batch), {"rate": batch["rate"]})

    def embed(self, tokens: Tokens) -> Tensor:
        return self.enter(tokens.values)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens)
        x = (
            (x if alter is None else alter(x))
            + self.place(tokens.coords)
            + self.rate(tokens.context["rate"][:, None, None] / 100)
        )
        x, kept = self.trunk(x, keep, tokens.owner, layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)


class Steps:
    """A content of its own: absolute error on the differences between neighbouring values."""

    width = PATCH - 1

    def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:
        return (prediction - tokens.values.diff(dim=-1)).abs().mean(-1)


class Guess(Predictor):
    """An MLP that sees the mean of the seen tokens and the place of the wanted one."""

    def __init__(self, encoder: Encoder, out: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(encoder.width + 1, width), nn.GELU(), nn.Linear(width, out))

    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        about = mean_of(latent, seen)[:, None].expand(-1, latent.shape[1], -1)
        return self.net(torch.cat([about, tokens.coords], -1))


class StripCNN(StripViT):
    """Blanks hidden patches before the first convolution; has a content and a predictor of its own."""

    depth, content = 0, Steps()

    def __init__(self, facts: Facts, *, width: int = 32):
        super().__init__(facts, width=width)
        del self.place, self.trunk
        self.embed_width = PATCH
        self.blank = nn.Parameter(torch.randn(PATCH))
        self.mix = nn.Conv1d(width, width, 3, padding=1)

    def embed(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        hidden = torch.zeros_like(tokens.valid) if hidden is None else hidden
        x = torch.where(hidden[..., None], self.blank, tokens.values if alter is None else alter(tokens.values))
        x = (self.enter(x) + self.rate(tokens.context["rate"][:, None, None] / 100)) * tokens.valid[..., None]
        x = (x + self.mix(x.mT).relu().mT) * tokens.valid[..., None]
        return Encoded(x, mean_of(x, tokens.valid))

    def predictor(self, out_width: int, width: int, depth: int) -> Predictor | None:
        return Guess(self, out_width, width)


class StripMLP(StripViT):
    """Only a summary of the whole: no tokens, no mixing point."""

    depth, has_tokens = 0, False

    def __init__(self, facts: Facts, *, width: int = 32):
        super().__init__(facts, width=width)
        del self.place, self.trunk, self.rate
        self.embed_width = 0

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        return Encoded(None, mean_of(self.enter(tokens.values).relu(), keep))


class StripFlat(StripViT):
    """Uneven signals without padding: all tokens in one row, with their owners."""

    def tokenize(self, batch: Batch) -> Tokens:
        values, coords, valid = self.cut(batch)
        owner = torch.arange(len(valid))[:, None].expand_as(valid)
        flat = [part[valid][None] for part in (values, coords, valid)]
        return Tokens(*flat, {"rate": batch["rate"]}, owner[valid][None])

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        assert tokens.owner is not None
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        owner, rate = tokens.owner[0], tokens.context["rate"]
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x = x + self.place(tokens.coords) + self.rate(rate[owner][None, :, None] / 100)
        x, kept = self.trunk(x, keep, tokens.owner, layers)
        weight = keep[0, :, None].to(x.dtype)
        total = x.new_zeros(len(rate), x.shape[-1]).index_add_(0, owner, x[0] * weight)
        count = x.new_zeros(len(rate), 1).index_add_(0, owner, weight)
        return Encoded(x, total / count.clamp(min=1), torch.stack(kept) if layers else None)


def write(folder: Path) -> str:
    """Nine signals of different length and a damaged file."""
    chance = np.random.default_rng(0)
    for number in range(9):
        length = 17 + 5 * number
        np.save(folder / f"signal-{number}.npy", chance.normal(size=length).cumsum().astype(np.float32))
    (folder / "signal-broken.npy").write_bytes(b"\x93NUMPY, and then nothing")
    return str(folder)


@hookimpl
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    return {"npy": Strips}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    return {"crops": Crops}


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    return {"vit": StripViT, "cnn": StripCNN, "mlp": StripMLP, "flat": StripFlat}


@hookimpl
def unlabeled_collate(samples: Sequence[Sample]) -> Batch:
    return pad(samples)


@hookimpl
def unlabeled_example(folder: Path) -> str:
    return write(folder)
