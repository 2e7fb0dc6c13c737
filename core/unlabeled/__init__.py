"""unlabeled turns unlabelled data of any domain into a foundation model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlabeled.embedder import Embedder
    from unlabeled.exporting.export import export
    from unlabeled.saved import load
    from unlabeled.training.pretrain import pretrain

__all__ = ["Embedder", "export", "load", "pretrain"]


def __getattr__(name: str) -> Any:  # torch is imported when one of them is used, not before
    if name == "Embedder":
        from unlabeled.embedder import Embedder

        return Embedder
    if name == "export":
        from unlabeled.exporting.export import export

        return export
    if name == "load":
        from unlabeled.saved import load

        return load
    if name == "pretrain":
        from unlabeled.training.pretrain import pretrain

        return pretrain
    raise AttributeError(f"module 'unlabeled' has no attribute {name!r}")
