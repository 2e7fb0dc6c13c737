"""What a distribution's metadata requires (PEP 508), and what of it is not there. No torch, no `packaging`."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_PIECE = re.compile(r"""\s*(?:(?P<text>'[^']*'|"[^"]*")|(?P<word>[A-Za-z_.]+)|(?P<sign>[()]|~=|===?|!=|<=?|>=?))""")

_EXTRAS = re.compile(r"\[[^]]*\]")
_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(?!\d*!)")
_WANTED = re.compile(r"(~=|===?|!=|<=?|>=?)\s*([^\s,()]+)")


def normalised(name: str) -> str:
    """A distribution's or an extra's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(dist: Distribution, extra: str = "") -> Iterator[str]:
    """What the distribution requires here, with the extra, and does not get.

    A name that is not installed, or with its version, as "torch>=2.11 (2.4.0 is installed)". A marker that cannot be
    read counts as one that holds, a version that cannot be read as one that fits.
    """
    for line in dist.requires or []:
        requirement, _, marker = line.partition(";")
        name = _NAME.match(requirement)
        if name and holds(marker, extra):
            lack = _lack(name[1], _EXTRAS.sub("", requirement[name.end() :]).strip(" ()"))
            if lack:
                yield lack


def _lack(name: str, wanted: str) -> str:
    try:
        have = distribution(name).version
    except PackageNotFoundError:
        return name
    return "" if fits(have, wanted) else f"{name}{wanted} ({have} is installed)"


def fits(version: str, wanted: str) -> bool:
    """Whether a version is one of those wanted, as in ">=2.11,<2.15", by the numbers of its release alone (PEP 440).

    What comes before and after a release (2.0rc1, 2.0.post1) counts as the release: pip is stricter.
    """
    have = _RELEASE.match(version)
    if have is None or wanted.startswith("@"):  # "name @ url"
        return True
    return all(_meets(have[1], sign, goal) for sign, goal in _WANTED.findall(wanted))


def _meets(have: str, sign: str, wanted: str) -> bool:
    goal = _RELEASE.match(wanted)
    if goal is None:
        return True
    a, b = _numbers(have), _numbers(goal[1])
    if sign == "~=" or wanted.endswith(".*"):  # the same up to a number
        start = len(b) - (sign == "~=")
        same = (*a, *[0] * start)[:start] == b[:start]
        return same != (sign == "!=") and (sign != "~=" or _padded(a, b) >= _padded(b, a))
    same = _padded(a, b) == _padded(b, a)
    if sign in ("==", "===", "!="):
        return same != (sign == "!=")
    return _ordered(_padded(a, b), sign, _padded(b, a))


def _padded(numbers: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """With zeros up to the other's length: 2 is 2.0."""
    return (*numbers, *[0] * (len(other) - len(numbers)))


def extra_of(dist: Distribution, *wanted: str) -> str:
    """The first of the wanted extras that the distribution has, as it writes it; else nothing."""
    offered = {normalised(extra): extra for extra in dist.metadata.get_all("Provides-Extra") or []}
    return next((offered[normalised(name)] for name in wanted if normalised(name) in offered), "")


def holds(marker: str, extra: str = "") -> bool:
    """Whether an environment marker holds here: `python_version < "3.12" and extra == "audio"`."""
    if not marker.strip():
        return True
    try:
        pieces = list(_pieces(marker))
        value, rest = _either(pieces, extra)
    except (ValueError, IndexError):
        return True
    return value or bool(rest)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _pieces(marker: str) -> Iterator[str]:
    at = 0
    marker = marker.strip()
    while at < len(marker):
        piece = _PIECE.match(marker, at)
        if piece is None:
            raise ValueError(marker)
        yield piece[0].strip()
        at = piece.end()


def _either(pieces: list[str], extra: str) -> tuple[bool, list[str]]:
    value, pieces = _both(pieces, extra)
    while pieces and pieces[0] == "or":
        further, pieces = _both(pieces[1:], extra)
        value = value or further
    return value, pieces


def _both(pieces: list[str], extra: str) -> tuple[bool, list[str]]:
    value, pieces = _one(pieces, extra)
    while pieces and pieces[0] == "and":
        further, pieces = _one(pieces[1:], extra)
        value = value and further
    return value, pieces


def _one(pieces: list[str], extra: str) -> tuple[bool, list[str]]:
    """A comparison, or an expression in brackets."""
    if pieces[0] == "(":
        value, pieces = _either(pieces[1:], extra)
        if pieces[0] != ")":
            raise ValueError(pieces[0])
        return value, pieces[1:]
    left, sign, right, *rest = pieces
    if sign == "not" and right == "in":
        sign, right, *rest = "not in", *rest
    return _compare(left, sign, right, extra), rest


def _compare(left: str, sign: str, right: str, extra: str) -> bool:
    if "extra" in (left, right):
        other = right if left == "extra" else left
        return (normalised(other.strip("'\"")) == normalised(extra)) == (sign in ("==", "==="))
    version = "version" in left + right and "platform_version" not in left + right
    a, b = _value(left), _value(right)
    if sign in ("in", "not in"):
        return (a in b) == (sign == "in")
    if version and sign in ("<", "<=", ">", ">="):
        return _ordered(_numbers(a), sign, _numbers(b))
    if sign == "~=":  # at least this, and the same up to the last number
        return _numbers(a) >= _numbers(b) and _numbers(a)[: len(_numbers(b)) - 1] == _numbers(b)[:-1]
    if b.endswith(".*"):
        return (a + ".").startswith(b[:-1]) == (sign != "!=")
    return (a == b) == (sign != "!=") if sign in ("==", "===", "!=") else _ordered(a, sign, b)


def _ordered(a: str | tuple[int, ...], sign: str, b: str | tuple[int, ...]) -> bool:
    less, equal = a < b, a == b  # type: ignore[operator]
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[sign]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _value(word: str) -> str:
    if word[0] in "'\"":
        return word[1:-1]
    implementation = sys.implementation
    values = {
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "python_full_version": platform.python_version(),
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
        "platform_release": platform.release(),
        "platform_version": platform.version(),
        "platform_python_implementation": platform.python_implementation(),
        "implementation_name": implementation.name,
        "implementation_version": ".".join(map(str, implementation.version[:3])),
    }
    if word not in values:
        raise ValueError(word)
    return values[word]
