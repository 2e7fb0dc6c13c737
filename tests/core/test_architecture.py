"""The architecture of docs/architecture.md, read off the source: who imports whom, and what must never be imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "unlabeled"
PLUGINS = sorted((ROOT / "plugins").glob("*/unlabeled_*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOMAINS = set(PROJECT["entry-points"]["unlabeled"]) | set(PROJECT["optional-dependencies"]) - {
    "all",
    "dev",
    "report",
    "store",
    "tensorboard",
    "bench",
    "export",
}

LEVELS: dict[str, int] = {
    # a module or a room: it may import what has a lower number, and its own room
    "errors": 0,
    "deprecation": 0,
    "requirements": 0,
    "randomness": 0,
    "schedules": 0,
    "collectives": 0,
    "hookspecs": 0,
    "memory": 0,
    "precision": 0,
    "contract": 1,
    "masking": 2,
    "corruption": 3,
    "layers": 2,
    "targets": 2,
    "sinkhorn": 2,
    "normaliser": 2,
    "rows": 1,
    "methods": 2,
    "pictures": 2,
    "files": 2,  # writing a file whole knows nothing of training; saving an encoder needs it too
    "seen": 3,
    "branches": 3,
    "weights": 3,
    "compose": 3,
    "lora": 3,
    "terms": 4,
    "builtin": 5,
    "plugins": 6,
    "config": 7,
    "refusal": 7,
    "objective": 8,
    "data": 7,
    "embedding": 8,
    "saved": 8,
    "stored": 9,
    "exporting": 9,
    "evaluation": 9,
    "training.checkpoint": 3,
    "training.health": 3,
    "training.folder": 8,
    "report": 10,  # a run writes its own at its end, and reads it in its folder's words
    "training": 11,
    "embedder": 12,
    "testing": 12,
    "pytest_plugin": 13,
    "cli": 12,
    "__init__": 13,
}


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """`terms.barlow`, from the core's folder on."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path, typing_too: bool = False) -> Iterator[str]:
    """Full names of what a file imports anywhere in it; what only a type checker sees is left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing_too:
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def room_of(module: str) -> str:
    """The longest entry of LEVELS that a module is, or lies in."""
    parts = module.split(".")
    known = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in LEVELS]
    assert known, f"{module} has no level: say in LEVELS where it belongs, and in docs/architecture.md what it is"
    return known[0]


@pytest.mark.parametrize("path", sources(CORE), ids=name_of)
class TestCore:
    def test_arrows_run_one_way(self, path: Path) -> None:
        mine = room_of(name_of(path))
        for full in imports(path):
            if not full.startswith("unlabeled."):
                continue
            other = room_of(full.removeprefix("unlabeled."))
            assert other == mine or LEVELS[other] < LEVELS[mine], f"{name_of(path)} imports {full}"

    def test_no_plugin_is_imported(self, path: Path) -> None:
        assert not [full for full in imports(path, typing_too=True) if full.startswith("unlabeled_")]

    def test_no_domain_is_named(self, path: Path) -> None:
        """No text in the code (docstrings aside) has a domain's name as a word, but for one example of an extra."""
        named = []
        for text in texts(path):
            plain = text.replace('"unlabeled[tabular]"', "")  # "no plugins; for example, pip install this one"
            named += [text for domain in DOMAINS if re.search(rf"\b{domain}\b", plain)]
        assert named == []

    def test_only_collectives_and_training_know_of_processes(self, path: Path) -> None:
        knows = any(full.startswith("torch.distributed") for full in imports(path, typing_too=True))
        knows |= "torch.distributed" in " ".join(texts(path))
        assert not knows or name_of(path) == "collectives" or name_of(path).startswith("training.")

    def test_what_is_public_says_what_it_is(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), "the module has no docstring"
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            specified = any("hookimpl" in ast.unparse(one) for one in node.decorator_list)  # documented in hookspecs
            assert specified or ast.get_docstring(node), f"{node.name} has no docstring"


def texts(path: Path) -> list[str]:
    """String constants of a file that are no docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in constants if id(node) not in docs]


@pytest.mark.parametrize("path", sorted((CORE / "terms").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_term_imports_no_other_term(path: Path) -> None:
    others = {full.split(".")[2] for full in imports(path, typing_too=True) if full.startswith("unlabeled.terms.")}
    assert others <= {"base"}
    assert path.stem != "base" or not others


def test_every_level_is_of_something_there() -> None:
    names = {name_of(path) for path in sources(CORE)}
    assert [room for room in LEVELS if room not in names] == []


def test_plugins_use_what_is_public() -> None:
    """A first-party plugin takes nothing from a module of the core that a stranger could not."""
    assert PLUGINS
    for folder in PLUGINS:
        for path in sources(folder):
            private = [full for full in imports(path) if re.match(r"unlabeled\.(.*\.)?_", full)]
            strangers = [full for full in imports(path) if re.match(r"unlabeled_", full)]
            assert private == []
            assert all(full.startswith(folder.name) for full in strangers), f"{path} imports another plugin"


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_types_are_shipped(folder: Path) -> None:
    assert (folder / "py.typed").exists()


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_no_file_is_long(folder: Path) -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(folder)}
    assert {path: lines for path, lines in long.items() if lines > 400} == {}


def test_the_extension_surface_fits_on_one_screen() -> None:
    assert len((CORE / "hookspecs.py").read_text().splitlines()) <= 80


LIGHT = ["unlabeled", "unlabeled.plugins", "unlabeled.hookspecs", "unlabeled.cli.main", "unlabeled.pytest_plugin"]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_costs_no_torch(module: str) -> None:
    code = f"import {module}, sys; print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_loading_a_plugin_imports_no_domain_library() -> None:
    """Domain libraries are imported inside readers; a hook's module is light."""
    libraries = {
        re.split(r"[^A-Za-z0-9_-]", line)[0].replace("-", "_").lower()
        for domain in PROJECT["entry-points"]["unlabeled"]
        for line in PROJECT["optional-dependencies"][domain]
    }
    names = sorted(PROJECT["entry-points"]["unlabeled"])
    code = f"from unlabeled import plugins\nfor name in {names}: plugins.load(name)\nimport sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert libraries
    assert not (libraries | {"torch", "numpy"}) & set(out.stdout.lower().split())


# --- documents


def hooks() -> list[ast.FunctionDef]:
    tree = ast.parse((CORE / "hookspecs.py").read_text())
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_hook_is_in_the_documents_with_its_signature() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    documented = set(re.findall(r"^def (unlabeled_\w+)\(", text, re.MULTILINE))
    assert documented == {hook.name for hook in hooks()}
    for hook in hooks():
        assert hook.returns is not None
        line = f"def {hook.name}({ast.unparse(hook.args)}) -> {ast.unparse(hook.returns)}"
        assert line in text, f"docs/plugins.md does not have: {line}"


def test_every_promise_is_in_the_documents() -> None:
    from unlabeled.testing import PROMISES

    text = (ROOT / "docs" / "plugins.md").read_text()
    rows = re.findall(r"^\| ([A-Z]\d+) \| (.+?) \| `(.+?)` \|$", text, re.MULTILINE)
    assert {code: (says, contract) for code, says, contract in rows} == {
        code: (promise.says, promise.contract) for code, promise in PROMISES.items()
    }


def test_every_room_is_in_the_documents() -> None:
    """docs/architecture.md speaks of every module and room of the core, and of none that is gone."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {room.partition(".")[0] for room in LEVELS} - {"__init__"}
    assert [room for room in sorted(rooms) if f"`{room}`" not in text] == []
    named = set(re.findall(r"`((?:core|plugins|tests|docs|benchmarks)/[\w/.-]*)`", text))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_promises_stand_in_the_contract() -> None:
    """What a failure of the conformance kit points at is there."""
    from unlabeled import contract, hookspecs
    from unlabeled.testing import PROMISES

    for promise in PROMISES.values():
        name, _, attribute = promise.contract.partition(".")
        home = hookspecs if name.startswith("unlabeled_") else contract
        found = getattr(home, name)
        assert not attribute or hasattr(found, attribute) or attribute in found.__annotations__
