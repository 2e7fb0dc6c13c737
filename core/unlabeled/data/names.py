"""Labels from names: `{digit}_{speaker}_*` says which part of a file's name is what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import UserError

__all__ = ["fields_of", "label_values", "parse_names"]


def fields_of(pattern: str) -> list[str]:
    """Names of the fields in a pattern."""
    return re.findall(r"{(\w+)}", pattern)


def parse_names(pattern: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Fields of each name, "" where it does not fit the pattern.

    A pattern with a slash is compared with the end of the path, else with the file's name; both without suffix.
    {field} is as few characters as will do and * is anything, neither with a slash.

    Raises:
        UserError: the pattern has no field or one twice, or not one name fits it.
    """
    known = fields_of(pattern)
    if not known or len(set(known)) < len(known):
        raise UserError(f"pattern {pattern!r} needs fields in braces, each once, as in '{{digit}}_{{speaker}}_*'")
    parts = re.split(r"({\w+}|\*)", pattern)
    text = "".join(
        "[^/]*?" if part == "*" else f"(?P<{part[1:-1]}>[^/]+?)" if part.startswith("{") else re.escape(part)
        for part in parts
    )
    form = re.compile(text)
    depth = pattern.count("/") + 1
    found = [form.fullmatch("/".join(PurePath(name).with_suffix("").parts[-depth:])) for name in names]
    if not any(found):
        raise UserError(f"pattern {pattern!r} fits no name; the first is {names[0]!r}")
    return {name: [one[name] if one else "" for one in found] for name in known}


def label_values(texts: Sequence[str]) -> NDArray[np.float64] | NDArray[np.str_]:
    """Numbers where all of them are, NaN where there is none; else text."""
    try:
        numbers = np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts, dtype=np.str_)
    return numbers if np.isfinite(numbers).any() else np.array(texts, dtype=np.str_)
