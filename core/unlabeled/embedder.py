"""A run as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.saved import describe, load
from unlabeled.training.distributed import pick_device


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What the run's reader takes becomes features [n, D] float32, a row a sample; nothing is fitted.

        make_pipeline(Embedder("runs/mae"), LogisticRegression()).fit("train.csv", y).predict("new.csv")

    Args:
        run: a run's folder, or its encoder folder.
        batch_size: samples at once; None: as many as the reader says.
        device: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, run: str | Path, batch_size: int | None = None, device: str = "auto"):
        self.run = run
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Nothing."""
        return self

    def transform(self, X: str | Path | Sequence[str | Path]) -> NDArray[np.float32]:
        """Features of all samples of a source, or of several after one another.

        Raises:
            UserError: there is no such run or source, or a sample cannot be read, so that rows would be missing.
        """
        sources = [X] if isinstance(X, str | Path) else list(X)
        if not sources:
            raise UserError("an Embedder takes what the run's reader takes, or several of these, and got none")
        saved, encoder, device = describe(self.run), load(self.run), pick_device(self.device)
        parts = []
        for source in sources:
            reader, view = saved.make_reader(str(source)), saved.make_view()
            made = embed(encoder, reader, view, saved.registry, batch_size=self.batch_size, device=device)
            if made.broken:
                first = made.broken[0]
                raise UserError(f"{first.name} of {source} cannot be read ({first.reason}); leave it out")
            parts.append(made.instances.numpy())
        return np.concatenate(parts)

    def __sklearn_is_fitted__(self) -> bool:
        return True
