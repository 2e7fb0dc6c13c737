"""Tables for unlabeled: CSV and Parquet rows of numbers, categories, booleans, dates and missing cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.hookspecs import hookimpl

if TYPE_CHECKING:
    from unlabeled.contract import Encoder, Reader, Target, View


@hookimpl
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    from unlabeled_tabular.readers import TableReader

    return {"table": TableReader}


@hookimpl
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    from unlabeled_tabular.views import VIEWS

    return VIEWS


@hookimpl
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    from unlabeled_tabular.encoders import MLP, FTTransformer

    return {"ft_transformer": FTTransformer, "mlp": MLP}


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled_tabular.targets import Bins

    return {"bins": Bins}


@hookimpl
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    from unlabeled_tabular.recipes import RECIPES

    return RECIPES


@hookimpl
def unlabeled_example(folder: Path) -> str:
    from unlabeled_tabular.example import write

    return write(folder)
