"""Finds plugins. Listing reads distribution metadata alone; loading imports one domain.

No torch here: `unlabeled --help` and `unlabeled plugins` run in a fraction of a second.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import pluggy

from unlabeled import hookspecs, requirements
from unlabeled.errors import UserError, choose, nearest, one_line

__all__ = ["Listed", "PluginError", "Registry", "core", "listing", "load"]

GROUP = "unlabeled"
HOOKS = frozenset(name for name in vars(hookspecs) if name.startswith("unlabeled_"))
CORE = "the core"


class PluginError(UserError):
    """A plugin is absent, cannot be imported, misspells a hook, or claims a name twice."""


@dataclass(frozen=True)
class Listed:
    """A plugin as its distribution describes it, before anything is imported."""

    name: str
    distribution: str  # name and version
    missing: tuple[str, ...] = ()  # requirements that are not installed, or in a version that does not fit
    mend: str = ""  # the command that installs them
    entry: EntryPoint | None = field(default=None, compare=False, repr=False)

    @property
    def domain(self) -> str:
        """The domain it is, or adds to."""
        return self.name.partition("-")[0]

    def __str__(self) -> str:
        return f"{self.name} of {self.distribution}"


def disabled() -> set[str]:
    """Names in UNLABELED_DISABLE, separated by commas."""
    return {name.strip() for name in os.environ.get("UNLABELED_DISABLE", "").split(",")} - {""}


def listing() -> list[Listed]:
    """Every installed plugin, by name, from metadata alone; those in UNLABELED_DISABLE are left out."""
    off = disabled()
    found = [(entry, dist) for dist, entries in _distributions() for entry in entries if entry.name not in off]
    return [_listed(entry, dist) for entry, dist in sorted(found, key=lambda pair: (pair[0].name, pair[0].value))]


def _distributions() -> Iterator[tuple[Distribution, list[EntryPoint]]]:
    """Distributions with entry points of our group; a stranger's damaged metadata hides its own plugins alone."""
    seen: set[str] = set()
    for dist in distributions():
        try:
            if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            entries = [entry for entry in dist.entry_points if entry.group == GROUP]
            name = requirements.normalised(dist.name or "")
        except Exception:  # entry points or metadata that cannot be parsed
            continue
        if entries and name not in seen:  # the first on the path is the one that would be imported
            seen.add(name)
            yield dist, entries


def _listed(entry: EntryPoint, dist: Distribution) -> Listed:
    extra = requirements.extra_of(dist, entry.name, entry.name.partition("-")[0])
    missing = tuple(requirements.missing(dist, extra))
    mend = f'pip install "{dist.name}[{extra}]"' if extra else f"pip install {dist.name}"
    return Listed(entry.name, f"{dist.name} {dist.version}", missing, mend if missing else "", entry)


class Registry:
    """Everything that the core and the plugins of one domain offer, by name. A broken plugin hurts no other.

    `broken` says what is wrong with which add-on, by plugin name; a hook is called when its table is first asked
    for, so that an add-on can join it then. The domain's own plugin cannot be done without: it raises instead.
    """

    def __init__(self, domain: str | None, plugins: list[Listed]):
        from unlabeled import builtin

        self.domain = domain
        self.broken: dict[str, str] = {}
        self.seconds: dict[str, float] = {}  # that importing a plugin and calling its hooks took, by its name
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(builtin, name=CORE)
        self._plugins: dict[str, Listed] = {}  # by registered name, in order: the domain's own first
        self._owners: dict[str, dict[str, str]] = {}  # by hook and name, as registered
        for plugin in plugins:
            twins = [str(other) for other in plugins if other.name == plugin.name]
            cause = _twins(plugin, twins) if len(twins) > 1 else self._register(plugin)
            if cause:
                self.broken[plugin.name] = cause

    def _register(self, plugin: Listed) -> str:
        assert plugin.entry is not None, "only listed plugins are loaded"
        try:
            with self._timed(plugin):
                module = plugin.entry.load()
            wrong = _misspelt(module)
            if not wrong:
                self._manager.register(module, name=str(plugin))
        except pluggy.PluginValidationError as error:  # pluggy ends with the arguments that are not in the hook
            wrong = f"gives a hook arguments that it does not have ({str(error).strip().splitlines()[-1].strip()})"
        except ValueError as error:
            if "already registered" not in str(error):
                return _cause(plugin, error)
            return f"plugin {plugin} is the same module as another plugin; uninstall one of them"
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything; it must hurt no other
            return _cause(plugin, error)
        if wrong:
            return f"plugin {plugin} {wrong}; the hooks are in docs/plugins.md; {_without(plugin)}"
        self._plugins[str(plugin)] = plugin
        return ""

    @contextmanager
    def _timed(self, plugin: Listed | None) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            name = plugin.name if plugin else CORE
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Of one hook: the core's, the domain's own, the add-ons', by name."""
        order = [CORE, *self._plugins]
        return sorted(getattr(self._manager.hook, hook).get_hookimpls(), key=lambda one: order.index(one.plugin_name))

    def _call(self, impl: pluggy.HookImpl, hook: str, accept: Callable[[Any], str], **arguments: Any) -> Any:
        """What one plugin's hook returns, or None where it fails or is not accepted, and then it is noted as broken.

        Raises:
            PluginError: the plugin is the domain's own.
        """
        plugin = self._plugins.get(impl.plugin_name)
        try:
            with self._timed(plugin):
                value = impl.function(*(arguments[name] for name in impl.argnames))
            wrong = accept(value)
        except (Exception, SystemExit) as error:
            if plugin is None:
                raise
            cause = _cause(plugin, error, f"in {hook}")
            if plugin.name == self.domain:
                raise PluginError(cause) from error
        else:
            if plugin is None or not wrong:
                return value
            cause = f"plugin {plugin}: {hook} {wrong}; {_without(plugin)}"
            if plugin.name == self.domain:
                raise PluginError(cause)
        self.broken[plugin.name] = cause
        return None

    def _merged(self, hook: str, accept: Callable[[Any], str]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        owner = self._owners.setdefault(hook, {})
        for impl in self._implementations(hook):
            for name, value in (self._call(impl, hook, accept) or {}).items():
                if name in merged:
                    own = self._plugins[impl.plugin_name]
                    raise PluginError(
                        f"{hook}: {name!r} is claimed by both {owner[name]} and {own}; rename or uninstall one, "
                        f"or {_without(own)}"
                    )
                merged[name], owner[name] = value, impl.plugin_name
        return merged

    def owner(self, table: str, name: str) -> str:
        """Which plugin offers a name of a table ("encoders"), by the plugin's own name; nothing: the core."""
        assert name in getattr(self, table), "asked of names that are there"
        plugin = self._plugins.get(self._owners[f"unlabeled_{table}"][name])
        return plugin.name if plugin else ""

    @cached_property
    def readers(self) -> Mapping[str, Callable[..., Any]]:
        """reader(source, *, facts, **options) by name."""
        return self._merged("unlabeled_readers", _factories)

    @cached_property
    def views(self) -> Mapping[str, Callable[..., Any]]:
        """view(facts, **options) by name."""
        return self._merged("unlabeled_views", _factories)

    @cached_property
    def encoders(self) -> Mapping[str, Callable[..., Any]]:
        """encoder(facts, **options) by name."""
        return self._merged("unlabeled_encoders", _factories)

    @cached_property
    def masks(self) -> Mapping[str, Callable[..., Any]]:
        """mask(**options) by name."""
        return self._merged("unlabeled_masks", _factories)

    @cached_property
    def targets(self) -> Mapping[str, Callable[..., Any]]:
        """target(encoder, **options) by name; the core's own are last, as the domain's first is the default."""
        own = core().targets if self.domain else {}
        merged = self._merged("unlabeled_targets", _factories)
        return {**{name: one for name, one in merged.items() if name not in own}, **own}

    @cached_property
    def terms(self) -> Mapping[str, Callable[..., Any]]:
        """term(encoder, **options) by name."""
        return self._merged("unlabeled_terms", _factories)

    @cached_property
    def methods(self) -> Mapping[str, Any]:
        """Rows of the table of methods by name."""
        return self._merged("unlabeled_methods", _rows)

    @cached_property
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations by name."""
        return self._merged("unlabeled_recipes", _mappings)

    @cached_property
    def commands(self) -> Mapping[str, Callable[[list[str]], None]]:
        """run(arguments) by name."""
        return self._merged("unlabeled_commands", _factories)

    def collate(self, samples: Any) -> Any:
        """The domain's own batch of samples, or None. An error in it is about these samples and is left alone."""
        return self._manager.hook.unlabeled_collate(samples=samples)

    def examples(self, folder: Any) -> list[str]:
        """Sources that the plugins wrote, each into a folder of its own under this one, for the conformance kit."""
        sources = []
        for number, impl in enumerate(self._implementations("unlabeled_example")):
            own = Path(folder) / f"example-{number}"
            own.mkdir(parents=True, exist_ok=True)
            source = self._call(impl, "unlabeled_example", _text, folder=own)
            sources += [source] if source else []
        return sources

    def make(self, what: str, name: str | None, /, *arguments: Any, **options: Any) -> Any:
        """Call the named factory of a kind (None: the domain's first) with checked options."""
        table: Mapping[str, Callable[..., Any]] = getattr(self, what + "s")
        if not table:
            raise PluginError(f"domain {self.domain!r} offers no {what}; its plugin must implement unlabeled_{what}s")
        factory = choose(what, name, table) if name else next(iter(table.values()))
        label = f"{what} {name or next(iter(table))!r}"
        check_options(label, factory, options)
        _check_complete(label, factory, arguments, options)
        return factory(*arguments, **options)


def _misspelt(module: Any) -> str:
    """What is wrong with a module's hooks, by name: not in hookspecs, or left without @hookimpl."""
    for name in dir(module):
        member = inspect.getattr_static(module, name)
        marked = isinstance(getattr(member, f"{GROUP}_impl", None), dict)
        if marked and name not in HOOKS:
            return f"implements {name}, which is no hook; {nearest(name, HOOKS)}"
        if name in HOOKS and not marked and callable(member):
            return f"defines {name} without @hookimpl, so that it would never be called"
    if isinstance(module, ModuleType) and not HOOKS & set(dir(module)):
        return "implements no hook"
    return ""


def _twins(plugin: Listed, owners: list[str]) -> str:
    return f"two distributions provide plugin {plugin.name!r}: {' and '.join(owners)}; uninstall one of them"


def _without(plugin: Listed) -> str:
    return f"UNLABELED_DISABLE={plugin.name} goes on without it"


def _cause(plugin: Listed, error: BaseException, where: str = "") -> str:
    """Why a plugin does not work, and the command that mends it, in one sentence."""
    package = plugin.distribution.partition(" ")[0]
    mend = plugin.mend or f"pip install --upgrade --force-reinstall {package}"
    at = f" {where}" if where else ""
    lacks = f"; it lacks {', '.join(plugin.missing)}" if plugin.missing else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"plugin {plugin}{at} needs {error.name!r}, which is not installed; mend it with: {mend}"
    if isinstance(error, ImportError):
        return f"plugin {plugin}{at} fails to import: {one_line(error, None)}{lacks}; mend it with: {mend}"
    what = f"{type(error).__name__}: {one_line(error, None)}{lacks}"
    return f"plugin {plugin} fails{at or ' to load'}: {what}; {_without(plugin)}"


def _mappings(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"returns {type(value).__name__}, not a mapping of names"
    wrong = [name for name in value if not isinstance(name, str)]
    return f"names something {wrong[0]!r}, which is not text" if wrong else ""


def _factories(value: Any) -> str:
    wrong = _mappings(value)
    if wrong:
        return wrong
    dead = [name for name, factory in value.items() if not callable(factory)]
    return f"gives for {dead[0]!r} something that cannot be called" if dead else ""


def _rows(value: Any) -> str:
    from unlabeled.methods import Method  # needs no torch

    wrong = _mappings(value)
    if wrong:
        return wrong
    other = [name for name, row in value.items() if not isinstance(row, Method)]
    return f"gives for {other[0]!r} something that is not an unlabeled.methods.Method" if other else ""


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else f"returns {type(value).__name__}, not the text that a reader takes"


def check_options(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """A sentence with the nearest names, where a factory does not take an option."""
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            known = [name for name in parameters if name not in ("encoder", "facts", "source")]
            raise UserError(f"{what} has no option {option!r}; {nearest(option, known)}")


def _check_complete(what: str, factory: Callable[..., Any], given: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """A sentence, where an option that a factory cannot do without is not given, or one that is not for users is."""
    try:
        inspect.signature(factory).bind(*given, **options)
    except TypeError as error:  # its words name the option: "missing a required argument: 'sizes'"
        raise UserError(f"{what} cannot be made: {error}") from None


@lru_cache
def load(domain: str) -> Registry:
    """What the core and one domain's plugins offer.

    Raises:
        PluginError: the domain's own plugin is absent or broken; what is wrong and the command that mends it.
    """
    plugins = listing()
    mine = [plugin for plugin in plugins if plugin.domain == domain]
    if domain in disabled():
        raise PluginError(f"domain {domain!r} is switched off by UNLABELED_DISABLE; take it out of there")
    if not mine:
        raise PluginError(f"no domain is called {domain!r}; {nearest(domain, {p.domain for p in plugins})}")
    if all(plugin.name != domain for plugin in mine):
        raise PluginError(
            f"plugin {mine[0]} adds to domain {domain!r}, which is not installed; install the domain's own"
        )
    registry = Registry(domain, mine)
    if domain in registry.broken:
        raise PluginError(registry.broken[domain])
    return registry


@lru_cache
def core() -> Registry:
    """What the core alone offers: masks, terms and methods."""
    return Registry(None, [])
