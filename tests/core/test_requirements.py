"""Markers and versions against `packaging`, which pytest depends on and the product does not."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from unlabeled import requirements


@pytest.mark.parametrize(
    ("marker", "extra", "expected"),
    [
        ("", "", True),
        ("extra == 'audio'", "audio", True),
        ('extra == "Audio_X"', "audio-x", True),
        ("extra == 'audio'", "", False),
        ("extra != 'audio'", "audio", False),
        ("python_version < '3.9' and extra == 'audio'", "audio", False),
        ("python_version >= '3.11' and extra == 'audio'", "audio", True),
        ("python_version >= '3.9'", "", True),  # as numbers, not as text
        ("python_version < '3.100'", "", True),
        ("python_full_version >= '3.11.0'", "", True),
        ("python_version == '3.*'", "", True),
        ("python_version ~= '3.0'", "", True),
        ("python_version ~= '2.7'", "", False),
        ("sys_platform == 'nowhere'", "", False),
        ("sys_platform != 'nowhere'", "", True),
        ("'nowhere' in sys_platform", "", False),
        ("'nowhere' not in sys_platform", "", True),
        ("os_name == 'a' or (extra == 'x' and os_name != 'a')", "x", True),
        ("(os_name == 'a' or extra == 'x') and os_name == 'a'", "x", False),
        ("os_name == 'a' or os_name == 'b' and os_name != 'c'", "", False),
        ("this is ? no marker", "", True),
        ("(os_name == 'a'", "", True),
        ("unheard_of == 'a'", "", True),
    ],
)
def test_markers(marker: str, extra: str, expected: bool) -> None:
    assert requirements.holds(marker, extra) is expected


def test_markers_agree_with_the_real_parser() -> None:
    """Every requirement of every distribution that is installed here, against `packaging` (pytest's dependency)."""
    lines = {line.partition(";")[2].strip() for dist in Distribution.discover() for line in dist.requires or []}
    assert len(lines) > 20
    for line in lines - {""}:
        for extra in ("", "dev", "test", "all"):
            assert requirements.holds(line, extra) is Marker(line).evaluate({"extra": extra}), (line, extra)


@pytest.mark.parametrize("sign", ["==", "!=", ">=", "<=", ">", "<", "~="])
def test_versions_agree_with_the_real_parser(sign: str) -> None:
    """Of releases; what comes before one counts as the release itself, so that a nightly build is no complaint."""
    versions = ["1", "1.0", "1.2", "1.2.0", "1.2.3", "1.10", "2", "2.0.1", "10.0"]
    for have in versions:
        for wanted in versions:
            if sign == "~=" and "." not in wanted:
                continue
            assert requirements.fits(have, sign + wanted) is SpecifierSet(sign + wanted).contains(have), (have, wanted)
            if sign in ("==", "!="):
                wild = f"{sign}{wanted}.*"
                assert requirements.fits(have, wild) is SpecifierSet(wild).contains(have), (have, wild)


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("0.1.0.dev0", ">=0.1", True),
        ("2.11.0+cpu", ">=2.11,<2.12", True),
        ("2.11.0+cpu", "==2.11", True),
        ("2.4.0", ">= 2.11, <2.15", False),
        ("unknown", ">=2", True),
        ("1.0", "@ https://example.org/one.whl?a>=2", True),
        ("1.0", ">=1!2.0", True),
        ("1.0", "", True),
    ],
)
def test_versions_that_are_no_plain_release(version: str, wanted: str, expected: bool) -> None:
    assert requirements.fits(version, wanted) is expected


def test_versions_of_all_that_is_installed_here_agree_with_the_real_parser() -> None:
    """Every requirement of every distribution, on those of which a plain release is installed."""
    seen = 0
    for line in {line for dist in Distribution.discover() for line in dist.requires or []}:
        wanted = Requirement(line)
        with suppress(PackageNotFoundError):
            have = Distribution.from_name(wanted.name).version
            if re.fullmatch(r"[\d.]+", have):
                expected = wanted.specifier.contains(have, prereleases=True)
                assert requirements.fits(have, str(wanted.specifier)) is expected, (line, have)
                seen += 1
    assert seen > 20
