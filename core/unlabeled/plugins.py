"""Finds plugins. Listing reads distribution metadata alone; loading imports one domain.

No torch here: `unlabeled --help` and `unlabeled plugins` run in a fraction of a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

import pluggy

from unlabeled import hookspecs
from unlabeled.errors import UserError, choose, nearest

GROUP = "unlabeled"


class PluginError(UserError):
    """A plugin is absent, cannot be imported, misspells a hook, or claims a name twice."""


@dataclass(frozen=True)
class Listed:
    """A plugin as its distribution describes it, before anything is imported."""

    name: str
    distribution: str  # name and version
    missing: tuple[str, ...] = ()  # requirements of its extra that are not installed
    mend: str = ""  # the command that installs them
    entry: EntryPoint | None = field(default=None, compare=False, repr=False)

    @property
    def domain(self) -> str:
        return self.name.partition("-")[0]


def listing() -> list[Listed]:
    """Every installed plugin, by name, from metadata alone; those in UNLABELED_DISABLE (commas) are left out."""
    off = {name.strip() for name in os.environ.get("UNLABELED_DISABLE", "").split(",")}
    found = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    return [_listed(entry) for entry in found if entry.name not in off]


def _listed(entry: EntryPoint) -> Listed:
    dist = entry.dist
    if dist is None:  # an entry point made by hand, in a test
        return Listed(entry.name, entry.value, entry=entry)
    domain = entry.name.partition("-")[0]
    missing = tuple(_missing(dist, domain))
    mend = f'pip install "{dist.name}[{domain}]"' if missing else ""
    return Listed(entry.name, f"{dist.name} {dist.version}", missing, mend, entry)


def _missing(dist: Distribution, extra: str) -> Iterator[str]:
    """Names in the distribution's extra of that name that are not installed; versions are pip's business."""
    for line in dist.requires or []:
        requirement, _, marker = line.partition(";")
        if f"extra == '{extra}'" not in marker.replace('"', "'"):
            continue
        name = requirement.split("[")[0].strip()
        for end in "<>=!~ (":
            name = name.partition(end)[0]
        try:
            distribution(name)
        except PackageNotFoundError:
            yield name


class Registry:
    """Everything that the core and the plugins of one domain offer, by name. A broken plugin hurts no other."""

    def __init__(self, domain: str | None, plugins: list[Listed]):
        from unlabeled import builtin

        self.domain = domain
        self.broken: dict[str, str] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(builtin, name="the core")
        for plugin in plugins:
            cause = self._register(plugin)
            if cause:
                self.broken[plugin.name] = cause

    def _register(self, plugin: Listed) -> str:
        assert plugin.entry is not None
        name, mend = f"{plugin.name} of {plugin.distribution}", plugin.mend
        try:
            self._manager.register(plugin.entry.load(), name=name)
            self._manager.check_pending()
        except ImportError as error:
            package = plugin.distribution.partition(" ")[0]
            needs = f"needs {error.name!r}, which cannot be imported" if error.name else f"fails to import: {error}"
            return f"plugin {name} {needs}; mend it with: {mend or f'pip install --upgrade {package}'}"
        except pluggy.PluginValidationError as error:
            self._manager.unregister(name=name)
            return f"plugin {name} implements a hook that does not exist ({error}); see unlabeled/hookspecs.py"
        except ValueError:
            return f"two distributions provide a plugin {plugin.name!r}, one is {plugin.distribution}; uninstall one"
        except Exception as error:  # a stranger's module may raise anything; it must hurt no other plugin
            return f"plugin {name} fails to load: {type(error).__name__}: {error}; UNLABELED_DISABLE={plugin.name}"
        return ""

    def _merged(self, hook: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        owner: dict[str, str] = {}
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            for name, value in impl.function().items():
                if name in merged:
                    raise PluginError(
                        f"{hook}: {name!r} is claimed by both {owner[name]} and {impl.plugin_name}; uninstall one"
                    )
                merged[name], owner[name] = value, impl.plugin_name
        return merged

    @cached_property
    def readers(self) -> Mapping[str, Callable[..., Any]]:
        return self._merged("unlabeled_readers")

    @cached_property
    def views(self) -> Mapping[str, Callable[..., Any]]:
        return self._merged("unlabeled_views")

    @cached_property
    def encoders(self) -> Mapping[str, Callable[..., Any]]:
        return self._merged("unlabeled_encoders")

    @cached_property
    def masks(self) -> Mapping[str, Callable[..., Any]]:
        return self._merged("unlabeled_masks")

    @cached_property
    def terms(self) -> Mapping[str, Callable[..., Any]]:
        return self._merged("unlabeled_terms")

    @cached_property
    def methods(self) -> Mapping[str, Any]:
        return self._merged("unlabeled_methods")

    @cached_property
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        return self._merged("unlabeled_recipes")

    @cached_property
    def commands(self) -> Mapping[str, Callable[[list[str]], None]]:
        return self._merged("unlabeled_commands")

    def collate(self, samples: Any) -> Any:
        """The domain's own batch of samples, or None."""
        return self._manager.hook.unlabeled_collate(samples=samples)

    def examples(self, folder: Any) -> list[str]:
        """Sources that the plugins wrote under the folder for the conformance kit."""
        return list(self._manager.hook.unlabeled_example(folder=folder))

    def make(self, what: str, name: str | None, *arguments: Any, **options: Any) -> Any:
        """Call the named factory of a kind (None: the domain's first) with checked options."""
        table: Mapping[str, Callable[..., Any]] = getattr(self, what + "s")
        if not table:
            raise PluginError(f"domain {self.domain!r} offers no {what}; its plugin must implement unlabeled_{what}s")
        factory = choose(what, name, table) if name else next(iter(table.values()))
        check_options(f"{what} {name or next(iter(table))!r}", factory, options)
        return factory(*arguments, **options)


def check_options(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """A sentence with the nearest names, where a factory does not take an option."""
    import inspect

    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            known = [name for name in parameters if name not in ("encoder", "facts", "source")]
            raise UserError(f"{what} has no option {option!r}; {nearest(option, known)}")


@lru_cache
def load(domain: str) -> Registry:
    """What the core and one domain's plugins offer.

    Raises:
        PluginError: the domain's own plugin is absent or broken; what is wrong and the command that mends it.
    """
    plugins = listing()
    mine = [plugin for plugin in plugins if plugin.domain == domain]
    if not mine:
        raise PluginError(f"no domain is called {domain!r}; {nearest(domain, {p.domain for p in plugins})}")
    registry = Registry(domain, mine)
    if domain in registry.broken:
        raise PluginError(registry.broken[domain])
    return registry


@lru_cache
def core() -> Registry:
    """What the core alone offers: masks, terms and methods."""
    return Registry(None, [])
