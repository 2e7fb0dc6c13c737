"""Is the representation alive? Measured on held-out samples that never change, with an alarm that says what died."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


def rank_of(x: Tensor) -> Tensor:
    """RankMe (arXiv 2210.02885) of centred embeddings [n, D]: exp of the entropy of the singular values.

    Centring makes it the dimension of what *differs* between samples, 1 … min(n, D); a constant gives 1.
    """
    x = x.double() - x.double().mean(0)
    values = torch.linalg.svdvals(x)
    share = values / values.sum().clamp(min=1e-12)
    entropy: Tensor = -(share * share.clamp(min=1e-12).log()).sum()
    return entropy.exp()


def spread_of(x: Tensor) -> Tensor:
    """√D × mean standard deviation of ℓ2-normalised rows: near 1 when directions differ, 0 when all are one."""
    x = torch.nn.functional.normalize(x.double(), dim=-1)
    deviation: Tensor = x.std(0, correction=0).mean()
    return deviation * math.sqrt(x.shape[-1])


def uniformity_of(x: Tensor) -> float:
    """ln of the mean over pairs of exp(-2 ‖x - y‖²) of ℓ2-normalised rows (arXiv 2005.10242): 0 where all are one."""
    if len(x) < 2 or not x.isfinite().all():
        return math.nan
    distance = torch.pdist(torch.nn.functional.normalize(x.double(), dim=-1))
    return float(torch.logsumexp(-2 * distance.square(), 0) - math.log(len(distance)))


def alignment_of(x: Tensor, y: Tensor) -> float:
    """Mean ‖x - y‖² of ℓ2-normalised rows, two views of a sample each (arXiv 2005.10242): 0 where they agree, to 4."""
    x, y = (torch.nn.functional.normalize(one.double(), dim=-1) for one in (x, y))
    return float((x - y).square().sum(-1).mean())


def measure(embeddings: Tensor) -> dict[str, float]:
    """std, rank and share of dead dimensions of [n, D] embeddings."""
    if not embeddings.isfinite().all():
        return {"std": math.nan, "rank": math.nan, "dead": math.nan}
    deviation = embeddings.double().std(0, correction=0)
    dead = (deviation < 1e-3 * deviation.max().clamp(min=1e-12)).double().mean()
    return {"std": float(spread_of(embeddings)), "rank": float(rank_of(embeddings)), "dead": float(dead)}


@dataclass
class Alarm:
    """Speaks when an embedding has collapsed for `patience` looks in a row, measured against the untrained encoder.

    Complete collapse: the spread of directions falls below a twentieth of what it was before training.
    Dimensional collapse: fewer than 1.5 directions are left (of an encoder that had two or more; else three quarters of
    what it had), or a twentieth of the untrained encoder's.
    Collapse of projections, which batch norm in a head can hide from the loss for long: the spread that a term
    reports falls below half of the best it had.
    """

    patience: int = 2
    first: dict[str, float] | None = None
    streak: int = 0
    best: dict[str, float] = field(default_factory=dict)  # of each term's projections
    streaks: dict[str, int] = field(default_factory=dict)
    spoken: list[str] = field(default_factory=list)

    def look(self, health: dict[str, float], step: int) -> str | None:
        """What has collapsed, in one sentence, the first time that it is certain; else None."""
        if self.first is None:
            self.first = health
            return None
        what = self._diagnosis(health)
        self.streak = self.streak + 1 if what else 0
        return self._speak(step, what) if what and self.streak == self.patience else None

    def hear(self, metrics: Mapping[str, float], step: int) -> str | None:
        """The same for the spread of projections, "<term>/std", of a line of the log."""
        for name, value in metrics.items():
            term, _, what = name.partition("/")
            if what != "std":
                continue
            self.best[term] = max(value, self.best.get(term, 0.0))
            low = value < 0.5 * self.best[term]
            self.streaks[term] = self.streaks.get(term, 0) + 1 if low else 0
            if self.streaks[term] == self.patience:
                return self._speak(
                    step,
                    f"the projections of term {term!r} are becoming one (spread {value:.2g}, it was "
                    f"{self.best[term]:.2g}): add a stop-gradient, an EMA teacher or a term that repels, or lower lr",
                )
        return None

    def _speak(self, step: int, what: str) -> str:
        sentence = f"collapse at step {step}: {what}"
        self.spoken.append(sentence)
        return sentence

    def _diagnosis(self, health: dict[str, float]) -> str | None:
        assert self.first is not None
        if not all(value == value for value in health.values()):
            return "embeddings are not finite"
        std, rank = (f"{health[name]:.2g}, {self.first[name]:.2g} before training" for name in ("std", "rank"))
        if health["std"] < 0.05 * self.first["std"]:
            return (
                f"all samples get nearly the same embedding (spread {std}): the constant solves this objective; "
                "add a stop-gradient, an EMA teacher or a term that repels"
            )
        if health["rank"] < max(min(1.5, 0.75 * self.first["rank"]), 0.05 * self.first["rank"]):
            return (
                f"embeddings vary along too few directions (rank {rank}): dimensions collapsed; "
                "lower lr, raise batch_size or add a variance term"
            )
        return None

    def state(self) -> dict[str, object]:
        """For the checkpoint."""
        return asdict(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)
