"""The two errors that carry a message to a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

__all__ = ["BrokenItem", "UserError", "check_bounds", "choose", "nearest", "one_line"]

T = TypeVar("T")


class UserError(Exception):
    """Something the user can mend: one sentence that names the thing and the way out. Exit code 2."""


class BrokenItem(Exception):
    """One sample that cannot be read. Readers raise it (or anything else): the item is quarantined."""


def one_line(error: BaseException, most: int | None = 200) -> str:
    """What an error says, for the inside of a sentence: on one line, and no longer than so many letters."""
    return " ".join(str(error).split())[:most]


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' or the whole list, to end a sentence about an unknown name."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names) or 'none'}"


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of a table, or a sentence with the nearest names."""
    if name not in table:
        raise UserError(f"no {what} is called {name!r}; {nearest(name, table)}")
    return table[name]


def optional(module: str, package: str, what: str, extra: str, without: str = "") -> Any:
    """A module that an extra brings.

    Args:
        package: as pip calls it.
        what: needs it, as a sentence begins.
        without: how to do without it, as the sentence ends.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f'{what} needs {package}: pip install "unlabeled[{extra}]"{without}') from None


def check_bounds(name: str, value: tuple[float, float], least: float, most: float) -> tuple[float, float]:
    """The two ends of a range.

    Raises:
        UserError: they are in the wrong order, or outside of `least` and `most`.
    """
    low, high = value
    if not least <= low <= high <= most:
        raise UserError(f"{name} are two numbers, the smaller first, from {least:g} to {most:g}, not {low:g}, {high:g}")
    return float(low), float(high)
