"""Old names of the public surface, for as long as docs/public.md promises."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

KEPT = 2  # minor versions, counted from the one that first warns


def renamed(module: str, since: str, **names: str) -> Callable[[str], Any]:
    """A module's `__getattr__`, under which old names still give what has replaced them, with a warning.

        __getattr__ = renamed(__name__, "0.2", old="new", gone="unlabeled.elsewhere.other")

    Args:
        since: the version that first warns, "major.minor".
        names: what to use instead of each old name: a name of the module, or a full one.
    """
    major, minor = (int(number) for number in since.split("."))
    until = f"{major}.{minor + KEPT}"

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].rpartition(".")
        home = home or module
        warnings.warn(
            f"{module}.{name} is deprecated since unlabeled {since} and goes in {until}: use {home}.{new}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(home), new)

    return get
