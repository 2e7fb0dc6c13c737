"""`unlabeled plugins` and `unlabeled methods`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from unlabeled import plugins
from unlabeled.errors import UserError

if TYPE_CHECKING:
    from unlabeled.methods import Method


def show_plugins(arguments: list[str]) -> int:
    """List plugins from metadata alone; with -v load each and say what it adds or why it is broken."""
    parser = argparse.ArgumentParser("unlabeled plugins", description="Installed plugins, and what each is missing.")
    parser.add_argument("-v", "--verbose", action="store_true", help="load each and show what it offers")
    verbose = parser.parse_args(arguments).verbose
    found = plugins.listing()
    for plugin in found:
        state = f"missing {', '.join(plugin.missing)}; mend it with: {plugin.mend}" if plugin.missing else "ok"
        print(f"{plugin.name:16} {plugin.distribution:28} {state}")
    if not found:
        print(f'no plugins in entry-point group {plugins.GROUP!r}; pip install "unlabeled[tabular]" brings one')
    if verbose and found:
        import torch  # noqa: F401  # now, so that its seconds are not taken for the first plugin's
    for domain in sorted({plugin.domain for plugin in found}) if verbose else []:
        print(f"\n{domain}")
        _show_domain(domain, [plugin for plugin in found if plugin.domain == domain])
    return 0


TABLES = ("readers", "views", "encoders", "masks", "targets", "terms", "methods", "recipes", "commands")


def _show_domain(domain: str, found: list[plugins.Listed]) -> None:
    """What each plugin adds, how long loading it took, what is broken and how to mend it."""
    try:
        registry = plugins.load(domain)
    except UserError as error:
        print(f"  broken: {error}")
        return
    broken: dict[str, None] = {}  # in order, each once
    offers: dict[str, dict[str, list[str]]] = {plugin.name: {} for plugin in found}
    for table in TABLES:
        try:
            names = getattr(registry, table)
        except UserError as error:
            broken[str(error)] = None
            continue
        for name in names:
            owner = registry.owner(table, name)
            if owner:  # not the core's
                offers[owner].setdefault(table, []).append(name)
    for plugin in found:
        print(f"  {plugin}, loaded in {registry.seconds.get(plugin.name, 0):.2f} s")
        for table, names in offers[plugin.name].items():
            print(f"    {table:10} {', '.join(names)}")
    for cause in [*broken, *registry.broken.values()]:
        print(f"  broken: {cause}")


def show_methods(arguments: list[str]) -> int:
    """The table of methods: name, what it needs, teacher, paper, and what it does."""
    parser = argparse.ArgumentParser("unlabeled methods", description="The table of methods.")
    parser.add_argument("name", nargs="?", help="show one method whole")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/methods.md has it")
    flags = parser.parse_args(arguments)
    registry = plugins.core()
    if flags.name:
        import yaml

        from unlabeled.config import method_data, method_from

        _, method = method_from(flags.name, registry)
        print(f"{flags.name}: {method.summary} ({_paper(method)})")
        print(yaml.safe_dump(method_data(method), sort_keys=False).rstrip())
        return 0
    from unlabeled.cli.tables import markdown, print_rows

    rows = method_rows(registry)
    print(markdown(rows), end="") if flags.markdown else print_rows(rows)
    return 0


WORDS = {"tokens": "tokens", "embed": "mixing point", "transforms": "transforms", "labels": "labels"}
"""What a method can need of an encoder, a view or the data beyond instances, in the words of the table."""


def method_rows(registry: plugins.Registry) -> list[dict[str, str]]:
    """A line of plain text for each method."""
    from unlabeled.refusal import method_needs

    rows = []
    for name, method in registry.methods.items():
        needs = method_needs(method, registry)
        rows.append(
            {
                "method": name,
                "needs": ", ".join(word for need, word in WORDS.items() if need in needs) or "instances",
                "teacher": method.teacher.name.replace("_", " "),
                "paper": _paper(method),
                "what it does": method.summary,
            }
        )
    return rows


def _paper(method: Method) -> str:
    """arXiv numbers say so; other papers are named."""
    return f"arXiv {method.paper}" if method.paper[:4].isdigit() else method.paper
