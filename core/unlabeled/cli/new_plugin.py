"""`unlabeled new-plugin`: a distribution that installs, passes its tests and trains before a line of it is changed."""

from __future__ import annotations

import argparse
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from unlabeled import plugins
from unlabeled.errors import UserError, nearest
from unlabeled.files import write_text

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PLACES = {"package": "src/{module}", "ci.yml": ".github/workflows/test.yml"}  # what lies elsewhere than in the template


def run(arguments: list[str]) -> int:
    """Write the distribution and say what to do with it."""
    parser = argparse.ArgumentParser("unlabeled new-plugin", description="Write a plugin to begin with.")
    parser.add_argument("name", help="of the plugin: the distribution is unlabeled-NAME")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--domain", help="the name of its domain; default: the plugin's")
    where.add_argument("--adds-to", metavar="DOMAIN", help="add to an installed domain instead")
    parser.add_argument("--out", help="the folder to write; default: unlabeled-NAME")
    flags = parser.parse_args(arguments)
    words = _words(flags.name, flags.domain, flags.adds_to)
    folder = Path(flags.out or words["dist"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; give another folder with --out")
    for path, text in sorted(_filled("addition" if flags.adds_to else "domain", words).items()):
        write_text(folder / path, text)
        print(folder / path)
    print(f'\nnext: cd {folder} && pip install -e ".[test]" && pytest')
    return 0


def _words(name: str, domain: str | None, adds_to: str | None) -> dict[str, str]:
    """What stands for what in the templates.

    Raises:
        UserError: a name that cannot be one, or a domain that is there already, or is not.
    """
    taken = sorted({plugin.domain for plugin in plugins.listing()})
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a plugin's name: lower-case letters, digits and single dashes between")
    if adds_to and adds_to not in taken:
        raise UserError(f"there is no domain {adds_to!r} to add to; {nearest(adds_to, taken)}")
    chosen = adds_to or domain or name.replace("-", "_")
    if not chosen.isidentifier() or chosen != chosen.lower():
        raise UserError(f"{chosen!r} cannot be a domain's name: lower-case letters, digits and underscores")
    if not adds_to and chosen in taken:
        raise UserError(
            f"there is a domain {chosen!r} already; choose another --domain, or add to it: --adds-to {chosen}"
        )
    return {
        "name": name,
        "domain": chosen,
        "dist": f"unlabeled-{name}",
        "module": f"unlabeled_{name.replace('-', '_')}",
    }


def _filled(kind: str, words: dict[str, str]) -> dict[str, str]:
    """Texts by their paths in the distribution."""

    def walk(folder: Traversable, path: str) -> dict[str, str]:
        out: dict[str, str] = {}
        for entry in folder.iterdir():
            name = entry.name.removesuffix(".tmpl")
            at = PLACES.get(name, f"{path}{name}").format(**words)
            out |= walk(entry, f"{at}/") if entry.is_dir() else {at: _fill(entry.read_text("utf-8"), words)}
        return out

    return walk(files("unlabeled") / "templates" / kind, "")


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text
