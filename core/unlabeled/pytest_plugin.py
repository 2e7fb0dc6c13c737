"""`pytest --unlabeled-plugin NAME`: the conformance kit, a test for everything that a plugin offers.

pytest imports this module in every project of an environment that has unlabeled: nothing heavy before the option is
used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unlabeled.testing import Bench

NODE = "unlabeled-plugin"  # where test files stand in node ids
Check = Callable[[], object]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    parser.getgroup("unlabeled").addoption(
        "--unlabeled-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="check every promise of this plugin of unlabeled: a domain, or <domain>-<anything>; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a name that is none before anything is collected."""
    wanted = config.getoption("--unlabeled-plugin")
    if wanted:
        from unlabeled import plugins
        from unlabeled.errors import nearest

        known = {plugin.name for plugin in plugins.listing()}
        for name in wanted:
            if name not in known:
                raise pytest.UsageError(f"no plugin of unlabeled is called {name!r}; {nearest(name, known)}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Put the checks before the project's own tests."""
    report = yield
    if isinstance(collector, pytest.Session) and report.passed:
        names = dict.fromkeys(collector.config.getoption("--unlabeled-plugin"))
        own = [PluginCollector.from_parent(collector, name=name, nodeid=f"{NODE}::{name}") for name in names]
        report.result[:0] = own
    return report


class PluginCollector(pytest.Collector):
    """The checks of one plugin."""

    def collect(self) -> Iterator[pytest.Item]:
        folder = TemporaryDirectory(prefix="unlabeled-")  # the examples are read until the last check
        self.config.add_cleanup(folder.cleanup)
        for what, check in checks_of(self.name, Path(folder.name)):
            yield CheckItem.from_parent(self, name=what, check=check)


def checks_of(name: str, folder: Path) -> Iterator[tuple[str, Check]]:
    """What is checked of a plugin, and how. Of one that cannot be opened: that alone, and the check says why."""
    from unlabeled.testing import Bench

    try:
        bench = Bench(name.partition("-")[0], folder)
    except Exception as error:  # a stranger's code may raise anything
        yield "opens", partial(_opened, error)
    else:
        yield "opens", partial(_opened, None)
        yield from _parts(bench, name)


def _opened(error: Exception | None) -> None:
    if error:
        raise error


def _parts(bench: Bench, name: str) -> Iterator[tuple[str, Check]]:
    """All of a domain; of an add-on, all that has to do with what it adds."""
    registry = bench.registry

    def mine(table: str, one: str) -> bool:
        return name == registry.domain or registry.owner(table, one) == name

    new_encoder = any(mine("encoders", one) for one in registry.encoders)
    for one in registry.readers:
        if mine("readers", one):
            yield f"reader {one}", partial(bench.check_reader, one)
    for one in registry.views:
        if mine("views", one) or new_encoder:  # every encoder takes every view
            yield f"view {one}", partial(bench.check_view, one)
    for one in registry.encoders:
        if mine("encoders", one):
            yield f"encoder {one}", partial(bench.check_encoder, one)
    for one in registry.encoders:
        for method in registry.methods:
            if mine("encoders", one) or mine("methods", method):
                yield f"encoder {one} by method {method}", partial(bench.check_method, one, method)


class CheckItem(pytest.Item):
    """One check, and a failure that is a sentence."""

    def __init__(self, *, check: Check, **given: Any):
        super().__init__(**given)
        self.check = check

    def runtest(self) -> None:
        self.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The promise, the input and the place in the contract; of another error, the traceback."""
        from unlabeled.errors import UserError
        from unlabeled.testing import BrokenPromise

        if isinstance(excinfo.value, (BrokenPromise, UserError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.config.rootpath / NODE, None, f"{self.parent.name}: {self.name}" if self.parent else self.name
