"""Every way to extend unlabeled, on one screen.

Entry-point group "unlabeled"; an entry's name is its domain, or "<domain>-<anything>" to add to a domain.
Hooks return mappings name -> factory. Implement any of them with `@hookimpl` in the module the entry names,
and keep that module light: import torch and file libraries inside the factories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:  # listing plugins must not cost an import of torch
    from unlabeled.contract import Batch, Encoder, Reader, Sample, Target, View
    from unlabeled.masking import Mask
    from unlabeled.methods import Method
    from unlabeled.terms.base import Term

hookspec, hookimpl = pluggy.HookspecMarker("unlabeled"), pluggy.HookimplMarker("unlabeled")
__all__ = ["hookimpl"]
# A hook specification has no body to return from.
# mypy: disable-error-code="empty-body"


@hookspec
def unlabeled_readers() -> Mapping[str, Callable[..., Reader]]:
    """reader(source: str, *, facts: Facts | None = None, **options). The first is the domain's default."""


@hookspec
def unlabeled_views() -> Mapping[str, Callable[..., View]]:
    """view(facts: Facts, **options). The first is the domain's default."""


@hookspec(firstresult=True)
def unlabeled_collate(samples: Sequence[Sample]) -> Batch | None:
    """One batch of samples. None: the core stacks tensors of equal shape."""


@hookspec
def unlabeled_encoders() -> Mapping[str, Callable[..., Encoder]]:
    """encoder(facts: Facts, **options): keeps unlabeled.contract.Encoder. The first is the domain's default."""


@hookspec
def unlabeled_masks() -> Mapping[str, Callable[..., Mask]]:
    """mask(**options): mask(tokens, draws) says which tokens are hidden. Beside the core's own."""


@hookspec
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    """target(encoder, **options): fixed features of tokens to predict. The first is what maskfeat and hubert use."""


@hookspec
def unlabeled_terms() -> Mapping[str, Callable[..., Term]]:
    """term(encoder, **options): a loss and its heads. Beside the core's own."""


@hookspec
def unlabeled_methods() -> Mapping[str, Method]:
    """Rows for the table of methods. Beside the core's own."""


@hookspec
def unlabeled_recipes() -> Mapping[str, Mapping[str, Any]]:
    """Configurations by name, in config.yaml's words. "default" always applies, a method's name to that method."""


@hookspec
def unlabeled_commands() -> Mapping[str, Callable[[list[str]], None]]:
    """Commands under `unlabeled <domain>`: name -> run(arguments); the first docstring line is the help."""


@hookspec
def unlabeled_example(folder: Path) -> str:
    """Writes a tiny data set, shaped like the real thing, under the folder; returns what a reader takes."""
