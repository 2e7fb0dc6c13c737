"""docs/public.md, `__all__`, and what is imported by whoever writes as a stranger would, agree; old names go slowly."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from unlabeled.deprecation import KEPT, renamed

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "unlabeled"
DOMAINS = sorted((ROOT / "plugins").glob("*/unlabeled_*"))
PAGE = (ROOT / "docs" / "public.md").read_text()


def documented() -> dict[str, list[str]]:
    """The names of each module on the page, in its order."""
    parts = re.split(r"^## `([\w.]+)`$", PAGE, flags=re.MULTILINE)[1:]
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    rows = {module: re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for module, text in tables.items()}
    return {module: re.findall(r"`(\w+)`", " ".join(cells)) for module, cells in rows.items()}


PUBLIC = documented()


def strangers() -> Iterator[tuple[str, str]]:
    """Where, and Python text, of everything that has to do with public names alone."""
    for folder in ("examples", "plugins", "tests/frozen"):
        yield from ((str(path.relative_to(ROOT)), path.read_text()) for path in (ROOT / folder).rglob("*.py"))
    for path in (CORE / "templates").rglob("*.py.tmpl"):
        yield str(path.relative_to(ROOT)), re.sub(r"\{\{(\w+)\}\}", r"\1", path.read_text())
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        whole = [block for block in blocks if not block.startswith("def unlabeled_") and "..." not in block]
        yield from ((f"{path.relative_to(ROOT)}, {block.splitlines()[0]!r}", block) for block in whole)


def imported(text: str) -> set[str]:
    """Full names of the core, and of a domain's modules, that a text imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if re.match(r"unlabeled\b", name)}


def private(text: str) -> set[str]:
    """What a text imports and may not."""
    known = set(PUBLIC) | {f"{module}.{name}" for module, names in PUBLIC.items() for name in names}
    return imported(text) - known


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_what_the_page_says(module: str) -> None:
    found = import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module])
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_no_other_module_of_the_core_says_that_it_is_public() -> None:
    said = set()
    for path in CORE.rglob("*.py"):
        if re.search(r"^__all__ =", path.read_text(), re.MULTILINE):
            parts = path.relative_to(CORE.parent).with_suffix("").parts
            said.add(".".join(parts).removesuffix(".__init__"))
    assert said == {module for module in PUBLIC if not module.startswith("unlabeled_")}


@pytest.mark.parametrize(("where", "text"), [pytest.param(*pair, id=pair[0]) for pair in strangers()])
def test_a_stranger_imports_public_names_alone(where: str, text: str) -> None:
    assert private(text) == set(), f"{where}: make them public in docs/public.md and __all__, or do without"


def test_what_an_example_takes_of_a_domain_is_public_too() -> None:
    taken: dict[str, set[str]] = {}
    for path in (ROOT / "examples").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            home = str(getattr(node, "module", ""))
            if isinstance(node, ast.ImportFrom) and home.split(".")[0] in {one.name for one in DOMAINS}:
                taken.setdefault(home, set()).update(alias.name for alias in node.names)
    assert taken == {home: set(names) for home, names in PUBLIC.items() if home.startswith("unlabeled_")}


def test_a_private_name_is_seen() -> None:
    assert private("from unlabeled.plugins import load, _twins") == {"unlabeled.plugins._twins"}
    assert private("import unlabeled.sinkhorn") == {"unlabeled.sinkhorn"}
    assert private("import unlabeled\nfrom unlabeled import plugins") == set()


# --- names that go


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One with names that have gone."""
    made = ModuleType("unlabeled_made_up")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    made.new = 3  # type: ignore[attr-defined]
    made.__getattr__ = renamed(made.__name__, "0.2", old="new", gone="unlabeled.errors.UserError")  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(("name", "use"), [("old", "unlabeled_made_up.new"), ("gone", "unlabeled.errors.UserError")])
def test_an_old_name_works_and_names_its_replacement(module: ModuleType, name: str, use: str) -> None:
    sentence = f"unlabeled_made_up.{name} is deprecated since unlabeled 0.2 and goes in 0.4: use {use}"
    with pytest.warns(DeprecationWarning, match=re.escape(sentence)) as caught:
        found = getattr(module, name)
    assert caught[0].filename == __file__, "the warning points at whoever uses the name"
    home, _, last = use.rpartition(".")
    assert found == (3 if home == module.__name__ else getattr(import_module(home), last))


def test_a_name_that_never_was_is_none(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'unlabeled_made_up' has no attribute 'other'"):
        _ = module.other


def overdue(text: str, now: str) -> list[str]:
    """Versions since which names of a module are deprecated that should have gone by now."""
    major, minor = (int(number) for number in now.split(".")[:2])
    since = [tuple(map(int, found.split("."))) for found in re.findall(r'renamed\(__name__, "(\d+\.\d+)"', text)]
    return [f"{old}.{first}" for old, first in since if (old, first + KEPT) <= (major, minor) or old < major]


def test_no_old_name_stays_for_longer_than_was_said() -> None:
    assert overdue('__getattr__ = renamed(__name__, "0.2", old="new")', "0.4.0.dev0") == ["0.2"]
    assert overdue('__getattr__ = renamed(__name__, "0.2", old="new")', "0.3.7") == []
    texts = {path: path.read_text() for path in CORE.rglob("*.py") if path.stem != "deprecation"}
    assert {path: found for path, text in texts.items() if (found := overdue(text, version("unlabeled")))} == {}
