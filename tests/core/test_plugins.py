"""Discovery, isolation of broken plugins, and the words with which each is reported."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch

from unlabeled import plugins
from unlabeled.cli.main import main
from unlabeled.contract import Batch
from unlabeled.errors import UserError
from unlabeled.plugins import PluginError, Registry, listing, load

Install = Callable[..., None]

GOOD = """
    from unlabeled.hookspecs import hookimpl

    class Encoder:
        def __init__(self, facts, *, width: int = 8, depth: int = 1):
            self.facts, self.width, self.depth = facts, width, depth

    @hookimpl
    def unlabeled_encoders():
        return {"first": Encoder, "alpha": Encoder}

    @hookimpl
    def unlabeled_readers():
        return {"plain": lambda source, *, facts=None: (source, facts)}
"""
"""A domain's module. Its encoders are not in alphabetical order: the first is the default."""


def add_on(body: str) -> str:
    """An add-on's module, with the marker imported."""
    return "from unlabeled.hookspecs import hookimpl\n" + textwrap.dedent(body)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install("dist", entry="module body", requires=[...]): a distribution as pip leaves it, on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNLABELED_DISABLE", raising=False)
    made: list[str] = []

    def put(
        dist: str, bodies: dict[str, str], requires: tuple[str, ...] = (), version: str = "1.0", points: str = ""
    ) -> None:
        info = tmp_path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        extras = {line.partition("extra ==")[2].strip(" '\"") for line in requires if "extra ==" in line}
        lines = [f"Provides-Extra: {extra}" for extra in sorted(extras)]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join([f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}", *lines]))
        entries = []
        for name, body in bodies.items():
            module = f"{dist}_{name}".replace("-", "_")
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(body))
            entries.append(f"{name} = {module}")
            made.append(module)
        (info / "entry_points.txt").write_text(points or "[unlabeled]\n" + "\n".join(entries) + "\n")
        load.cache_clear()

    yield put
    load.cache_clear()
    for module in made:
        sys.modules.pop(module, None)


def broken(name: str, domain: str = "zoo") -> str:
    """Why a plugin is broken; the rest of its domain must be there."""
    registry = load(domain)
    assert list(registry.encoders)[:2] == ["first", "alpha"]
    return registry.broken[name]


def test_listing_reads_metadata_alone(install: Install) -> None:
    install("zoo-dist", {"zoo": "raise SystemExit('imported')"}, version="2.5")
    [found] = [plugin for plugin in listing() if plugin.name == "zoo"]
    assert (found.domain, found.distribution, found.missing, found.mend) == ("zoo", "zoo-dist 2.5", (), "")


@pytest.mark.parametrize(
    "statement",
    [
        "import unlabeled",
        "import unlabeled.hookspecs",
        "from unlabeled import plugins; plugins.listing()",
        "from unlabeled import plugins; plugins.core()",
    ],
)
def test_no_torch_before_it_is_needed(statement: str) -> None:
    code = f"{statement}\nimport sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_the_first_factory_is_the_default_and_the_domain_comes_before_its_add_ons(install: Install) -> None:
    extra = add_on("""
        @hookimpl(trylast=True)
        def unlabeled_encoders():
            return {"aaa": dict}
    """)
    install("zoo-dist", {"zoo": GOOD})
    install("aaa-dist", {"zoo-aaa": extra})
    registry = load("zoo")
    assert list(registry.encoders) == ["first", "alpha", "aaa"]
    made = registry.make("encoder", None, {"columns": 3}, depth=4)
    assert (made.facts, made.width, made.depth) == ({"columns": 3}, 8, 4)
    assert registry.make("reader", "plain", "file.csv", facts=None) == ("file.csv", None)
    assert {"mae", "simclr"} <= set(registry.methods)
    assert {"random", "block"} <= set(registry.masks)


def test_a_missing_dependency_names_the_command_that_installs_it(install: Install) -> None:
    requires = ("nowhere-lib>=2; extra == 'zoo'", "torch", "elsewhere; extra == 'other'")
    install("zoo-dist", {"zoo": "import nowhere_lib"}, requires)
    [found] = [plugin for plugin in listing() if plugin.name == "zoo"]
    assert found.missing == ("nowhere-lib",)
    assert found.mend == 'pip install "zoo-dist[zoo]"'
    with pytest.raises(PluginError) as error:
        load("zoo")
    assert str(error.value) == (
        "plugin zoo of zoo-dist 1.0 needs 'nowhere_lib', which is not installed; "
        'mend it with: pip install "zoo-dist[zoo]"'
    )


def test_a_plain_requirement_that_is_missing_counts_too(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD}, ("nowhere-lib (>=2)", "Torch", "typing_extensions[x]>=1,<99"))
    [found] = [plugin for plugin in listing() if plugin.name == "zoo"]
    assert (found.missing, found.mend) == (("nowhere-lib",), "pip install zoo-dist")


def test_a_requirement_in_another_version_is_missing_too(install: Install) -> None:
    requires = ("Torch>=1.0,<99", "numpy<1.5", "pluggy (>=99)", "pytest[x]!=0.1,>=1000; extra == 'zoo'")
    install("zoo-dist", {"zoo": "from numpy import nothing_such"}, requires)
    [found] = [plugin for plugin in listing() if plugin.name == "zoo"]
    have = {name: Distribution.from_name(name).version for name in ("numpy", "pluggy", "pytest")}
    assert found.missing == (
        f"numpy<1.5 ({have['numpy']} is installed)",
        f"pluggy>=99 ({have['pluggy']} is installed)",
        f"pytest!=0.1,>=1000 ({have['pytest']} is installed)",
    )
    with pytest.raises(PluginError, match=r"cannot import name 'nothing_such'.*; it lacks numpy<1\.5 \(.*mend it with"):
        load("zoo")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import nowhere_lib", "needs 'nowhere_lib', which is not installed; mend it with: pip install"),
        ("from json import nothing_such", "fails to import: cannot import name 'nothing_such'"),
        ("raise OSError('libzoo.so.3 not found')", "fails to load: OSError: libzoo.so.3 not found; UNLABELED_DISABLE"),
        ("raise ValueError('odd')", "fails to load: ValueError: odd"),
        ("import sys; sys.exit(3)", "fails to load: SystemExit: 3"),
        ("def broken(:", "fails to load: SyntaxError"),
        ("x = 1", "implements no hook"),
        (
            add_on("@hookimpl\ndef unlabeled_encoder(): return {}"),
            "implements unlabeled_encoder, which is no hook; did you mean unlabeled_encoders",
        ),
        (add_on("def unlabeled_encoders(): return {}"), "defines unlabeled_encoders without @hookimpl"),
        (add_on("@hookimpl\ndef unlabeled_encoders(bogus): return {}"), "arguments that it does not have"),
        (add_on("@hookimpl\ndef unlabeled_encoders(): return ['vit']"), "unlabeled_encoders returns list, not a map"),
        (add_on("@hookimpl\ndef unlabeled_encoders(): return {1: dict}"), "names something 1, which is not text"),
        (add_on("@hookimpl\ndef unlabeled_encoders(): return {'v': 3}"), "gives for 'v' something that cannot be call"),
        (add_on("@hookimpl\ndef unlabeled_encoders(): return 1 / 0"), "fails in unlabeled_encoders: ZeroDivisionError"),
        (
            add_on("@hookimpl\ndef unlabeled_encoders(): import nowhere_lib"),
            "in unlabeled_encoders needs 'nowhere_lib'",
        ),
    ],
)
class TestBroken:
    def test_an_add_on_is_reported_and_leaves_its_domain_whole(self, install: Install, body: str, says: str) -> None:
        install("zoo-dist", {"zoo": GOOD})
        install("odd-dist", {"zoo-odd": body}, version="3.1")
        cause = broken("zoo-odd")
        assert cause.startswith("plugin zoo-odd")
        assert "zoo-odd of odd-dist 3.1" in cause
        assert says in cause
        assert "UNLABELED_DISABLE=zoo-odd" in cause or "pip install" in cause

    def test_a_domain_whose_own_plugin_is_broken_cannot_be_used(self, install: Install, body: str, says: str) -> None:
        install("zoo-dist", {"zoo": body})
        install("fine-dist", {"park": GOOD})
        with pytest.raises(PluginError) as error:
            _ = load("zoo").encoders
        assert says in str(error.value)
        assert "zoo-dist 1.0" in str(error.value)
        assert list(load("park").encoders) == ["first", "alpha"], "another domain is hurt"


def test_methods_must_be_rows_of_the_table(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {"zoo-odd": add_on("@hookimpl\ndef unlabeled_methods(): return {'mine': {'views': 2}}")})
    registry = load("zoo")
    assert "mae" in registry.methods
    assert "mine" not in registry.methods
    assert "'mine' something that is not an unlabeled.methods.Method" in registry.broken["zoo-odd"]


def test_two_owners_of_one_name_are_both_named(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {"zoo-odd": add_on("@hookimpl\ndef unlabeled_encoders(): return {'alpha': dict}")})
    with pytest.raises(PluginError) as error:
        _ = load("zoo").encoders
    for part in ("'alpha'", "zoo of zoo-dist 1.0", "zoo-odd of odd-dist 1.0", "UNLABELED_DISABLE=zoo-odd"):
        assert part in str(error.value)


def test_a_name_of_the_core_is_taken(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD + "\n    @hookimpl\n    def unlabeled_masks(): return {'random': dict}\n"})
    with pytest.raises(PluginError, match="'random' is claimed by both the core and zoo of zoo-dist"):
        _ = load("zoo").masks


def test_two_distributions_with_one_entry_point_name(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("one-dist", {"zoo-odd": GOOD})
    install("two-dist", {"zoo-odd": GOOD})
    cause = broken("zoo-odd")
    assert "two distributions provide plugin 'zoo-odd'" in cause
    assert "one-dist 1.0 and zoo-odd of two-dist 1.0" in cause
    install("fake-zoo", {"zoo": GOOD})
    with pytest.raises(PluginError, match=r"fake-zoo 1\.0 and zoo of zoo-dist 1\.0; uninstall one"):
        load("zoo")


def test_one_module_under_two_names(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {}, points="[unlabeled]\nzoo-again = zoo_dist_zoo\n")
    assert "is the same module as another plugin" in broken("zoo-again")


def test_an_entry_point_to_nothing(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {}, points="[unlabeled]\nzoo-odd = not_there.at_all\nzoo-attr = json:nothing\n")
    assert "needs 'not_there', which is not installed" in broken("zoo-odd")
    assert "zoo-attr of odd-dist 1.0 fails to load: AttributeError" in broken("zoo-attr")


def test_damaged_metadata_hides_its_own_plugins_alone(install: Install, tmp_path: Path) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {}, points="[unlabeled]\nthis is not an entry\n")
    bare = tmp_path / "bare-1.0.dist-info"
    bare.mkdir()
    (bare / "entry_points.txt").write_text("[unlabeled]\nzoo-bare = zoo_dist_zoo\n")
    assert "zoo" in {plugin.name for plugin in listing()}
    assert list(load("zoo").encoders) == ["first", "alpha"]


def test_disabling_leaves_a_plugin_out(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {"zoo-odd": "raise OSError"})
    monkeypatch.setenv("UNLABELED_DISABLE", "other, zoo-odd")
    assert "zoo-odd" not in {plugin.name for plugin in listing()}
    assert load("zoo").broken == {}
    monkeypatch.setenv("UNLABELED_DISABLE", "zoo")
    load.cache_clear()
    with pytest.raises(PluginError, match="'zoo' is switched off by UNLABELED_DISABLE"):
        load("zoo")


def test_a_verbose_listing_shows_what_each_adds_and_what_is_broken(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hook that crashes, of an add-on or of a domain's own plugin, hurts the listing of no other."""
    install("zoo-dist", {"zoo": GOOD})
    install("fine-dist", {"zoo-fine": add_on("@hookimpl\ndef unlabeled_recipes(): return {'mine': {}}")})
    install("slow-dist", {"zoo-slow": add_on("import time\ntime.sleep(0.3)\n@hookimpl\ndef unlabeled_views(): 1 / 0")})
    install("park-dist", {"park": GOOD + "\n    @hookimpl\n    def unlabeled_views(): return 1 / 0\n"})
    install("quay-dist", {"quay": "import nowhere_lib"})
    assert main(["plugins", "-v"]) == 0
    out = capsys.readouterr().out
    shown = {part.partition("\n")[0]: part for part in out.split("\n\n")}
    assert re.search(
        r"  zoo of zoo-dist 1\.0, loaded in \d\.\d\d s\n    readers    plain\n    encoders   first, alpha\n", out
    )
    assert re.search(r"  zoo-fine of fine-dist 1\.0, loaded in \d\.\d\d s\n    recipes    mine\n", out)
    assert float(re.search(r"zoo-slow of slow-dist 1\.0, loaded in (.+) s", out)[1]) >= 0.3  # type: ignore[index]
    assert "broken: plugin zoo-slow of slow-dist 1.0 fails in unlabeled_views: ZeroDivisionError" in shown["zoo"]
    assert "broken: plugin park of park-dist 1.0 fails in unlabeled_views: ZeroDivisionError" in shown["park"]
    assert "encoders   first, alpha" in shown["park"]
    assert "broken: plugin quay of quay-dist 1.0 needs 'nowhere_lib'" in shown["quay"]
    assert "ZeroDivisionError" not in shown["tabular"]


def test_a_plugin_is_switched_off_by_a_flag(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("zoo-dist", {"zoo": GOOD})
    install("odd-dist", {"zoo-odd": "raise OSError"})
    install("bad-dist", {"zoo-bad": "raise OSError"})
    monkeypatch.setenv("UNLABELED_DISABLE", "zoo-bad")
    assert main(["plugins", "-v", "--disable", "zoo-odd"]) == 0
    out = capsys.readouterr().out
    assert "zoo-dist" in out
    assert "odd" not in out
    assert "bad" not in out
    assert plugins.disabled() == {"zoo-bad", "zoo-odd"}, "and so it is in every process that is started"
    for line in (["--disable", "zooo-odd", "plugins"], ["plugins", "--disable"]):
        assert main(line) == 2
    out = capsys.readouterr().err
    assert "--disable takes the name of a plugin, not 'zooo-odd'; did you mean zoo-odd" in out
    assert "--disable takes the name of a plugin, not ''; there are: " in out


def test_unknown_names_come_with_the_nearest(install: Install) -> None:
    install("zoo-dist", {"zoo": GOOD})
    with pytest.raises(PluginError, match="no domain is called 'zooo'; did you mean zoo"):
        load("zooo")
    registry = load("zoo")
    with pytest.raises(UserError, match="no encoder is called 'alfa'; did you mean alpha"):
        registry.make("encoder", "alfa", {})
    with pytest.raises(UserError, match="no mask is called 'blok'; did you mean block"):
        registry.make("mask", "blok")
    with pytest.raises(UserError, match="encoder 'first' has no option 'widht'; did you mean width"):
        registry.make("encoder", None, {}, widht=3)
    with pytest.raises(UserError, match=r"there are: depth, width$"):
        registry.make("encoder", None, {}, q=3)


def test_what_a_factory_needs_and_does_not_get(install: Install) -> None:
    body = add_on("@hookimpl\ndef unlabeled_views(): return {'crop': lambda facts, size: size}")
    install("zoo-dist", {"zoo": body})
    with pytest.raises(UserError, match="view 'crop' cannot be made: missing a required argument: 'size'"):
        load("zoo").make("view", None, {})
    with pytest.raises(UserError, match="view 'crop' cannot be made: multiple values"):
        load("zoo").make("view", "crop", {}, facts={}, size=1)
    with pytest.raises(PluginError, match="'zoo' offers no encoder; its plugin must implement unlabeled_encoders"):
        load("zoo").make("encoder", None, {})


def test_an_add_on_without_its_domain(install: Install) -> None:
    install("odd-dist", {"zoo-odd": GOOD})
    with pytest.raises(PluginError, match=r"zoo-odd of odd-dist 1.0 adds to domain 'zoo', which is not installed"):
        load("zoo")


def test_hooks_are_called_once(install: Install) -> None:
    body = GOOD + "\n    calls = []\n    @hookimpl\n    def unlabeled_views(): calls.append(1); return {'v': dict}\n"
    install("zoo-dist", {"zoo": body})
    registry = load("zoo")
    assert registry.views is registry.views
    assert load("zoo") is registry
    assert sys.modules["zoo_dist_zoo"].calls == [1]


def test_examples_go_to_folders_of_their_own(install: Install, tmp_path: Path) -> None:
    body = """
        @hookimpl
        def unlabeled_example(folder):
            (folder / "data.csv").write_text(__name__)
            return str(folder / "data.csv")
    """
    install("zoo-dist", {"zoo": textwrap.dedent(GOOD) + textwrap.dedent(body)})
    install("fine-dist", {"zoo-fine": add_on(body)})
    install("odd-dist", {"zoo-odd": add_on("@hookimpl\ndef unlabeled_example(folder): return folder")})
    registry = load("zoo")
    sources = registry.examples(tmp_path / "here")
    assert [Path(source).read_text() for source in sources] == ["zoo_dist_zoo", "fine_dist_zoo_fine"]
    assert "returns PosixPath, not the text that a reader takes" in registry.broken["zoo-odd"]


def test_the_domain_collates(install: Install) -> None:
    body = add_on("""
        import torch

        @hookimpl
        def unlabeled_collate(samples):
            return {"flat": torch.cat([sample["x"] for sample in samples])}
    """)
    install("zoo-dist", {"zoo": body})
    batch: Batch = load("zoo").collate([{"x": torch.ones(2)}, {"x": torch.ones(3)}])
    assert batch["flat"].shape == (5,)
    assert plugins.core().collate([{"x": torch.ones(2)}]) is None


def test_the_core_alone() -> None:
    registry = plugins.core()
    assert registry.domain is None
    assert registry.broken == {}
    assert (dict(registry.readers), dict(registry.encoders)) == ({}, {})
    assert isinstance(registry, Registry)
    assert len(registry.methods) >= 8
