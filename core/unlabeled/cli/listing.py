"""`unlabeled plugins` and `unlabeled methods`."""

from __future__ import annotations

import argparse

from unlabeled import plugins
from unlabeled.errors import UserError


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
    if not verbose:
        return 0
    for domain in sorted({plugin.domain for plugin in found}):
        print(f"\n{domain}")
        try:
            registry = plugins.load(domain)
        except UserError as error:
            print(f"  broken: {error}")
            continue
        for cause in registry.broken.values():
            print(f"  broken: {cause}")
        for what in ("readers", "views", "encoders", "recipes", "commands"):
            print(f"  {what:10} {', '.join(getattr(registry, what)) or '-'}")
    return 0


def show_methods(arguments: list[str]) -> int:
    """The table of methods: name, what it needs from an encoder, paper, and what it does."""
    parser = argparse.ArgumentParser("unlabeled methods", description="The table of methods.")
    parser.add_argument("name", nargs="?", help="show one method whole")
    name = parser.parse_args(arguments).name
    from unlabeled.cli.tables import print_rows
    from unlabeled.config import method_data, method_from
    from unlabeled.refusal import method_needs

    registry = plugins.core()
    if name:
        import yaml

        _, method = method_from(name, registry)
        print(f"{name}: {method.summary} (arXiv {method.paper})")
        print(yaml.safe_dump(method_data(method), sort_keys=False).rstrip())
        return 0
    rows = [
        {
            "method": name,
            "encoder needs": "tokens" if "tokens" in method_needs(method, registry) else "instances",
            "teacher": method.teacher.name.replace("_", " "),
            "arXiv": method.paper,
            "what it does": method.summary,
        }
        for name, method in registry.methods.items()
    ]
    print_rows(rows)
    return 0
