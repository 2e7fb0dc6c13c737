"""Flags from type hints: a factory's options and the fields of `Training`, through jsonargparse.

What is parsed has the shape of config.yaml. Reader options are flags of their own (`--exclude`), those of the
encoder and the view carry its name (`--encoder.width`); `--encoder NAME` is short for `--encoder.name NAME`.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from unlabeled.compose import value_of as parsed
from unlabeled.errors import UserError, choose, nearest, one_line
from unlabeled.plugins import Registry

__all__ = ["Parser", "options_of", "plain"]

GIVEN_BY_THE_CORE = {"facts", "source"}
COMPOSE = {
    "--term": ("NAME:OPTION=VALUE,...", "a term of the method, or one more, any number of times"),
    "--hide": ("MASK:OPTION=VALUE,...", "what the student may not see"),
    "--teacher": ("NAME:OPTION=VALUE,...", "shared, stop_gradient or ema"),
    "--views": ("KIND=COUNT,...", "how many views a step sees: global=2,local=4"),
    "--weights": ("HOW", "fixed, or solved for at every step: pareto, pareto_unit"),
}
"""Flags that compose a method, what each is followed by, and what it is."""


class Parser(ArgumentParser):
    """jsonargparse with dashes in its help and one sentence for an error."""

    def __init__(self, command: str, description: str):
        super().__init__(prog=f"unlabeled {command}", description=description, exit_on_error=False)
        self.lists: dict[str, str] = {}  # flag -> "list" or "mapping", for the comma syntax

    def format_help(self, *formatter: Any) -> str:
        text = re.sub(r"--[\w.]+", lambda found: found[0].replace("_", "-"), super().format_help(*formatter))
        text = re.sub(r"--(encoder|view|reader|method)\.name", r"--\1", text)
        text = re.sub(r"\s+\[--(encoder|view) CONFIG\]", "", text)
        text = re.sub(r"\n  --(encoder|view) CONFIG .*", "", text)
        text = re.sub(r", --[\w.-]+\+ \S+", "", text)  # jsonargparse's way to append to a list; ours is commas
        text = re.sub(r"\(type:\s[^()]*?,\s+default:", "(default:", text)
        return re.sub(r"\s+\(default:\s+null\)", "", text)

    def add_factory(self, factory: Callable[..., Any], prefix: str | None, skip: set[str]) -> None:
        """A flag for each keyword option of a factory."""
        names = set(options_of(factory))
        every = set(inspect.signature(factory).parameters)
        add = self.add_class_arguments if inspect.isclass(factory) else self.add_function_arguments
        try:
            add(factory, prefix, skip={*(every - names), *skip})  # type: ignore[operator]
        except ValueError as error:
            if "already exists" not in str(error):
                raise
            raise UserError(
                f"an option of the domain is called as a flag of `{self.prog}` ({one_line(error)}); its author "
                "must give it another name"
            ) from None
        for name, hint in options_of(factory).items():
            kind = _container(hint)
            if kind:
                self.lists[f"{prefix}.{name}" if prefix else name] = kind

    def read(self, argv: Sequence[str]) -> Namespace:
        """Parse; raises UserError instead of leaving."""
        try:
            return self.parse_args(_commas(list(argv), self.lists))
        except ArgumentError as error:
            raise UserError(_sentence(str(error), self)) from None


def options_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Name -> type of the options that a user may give a factory: all but what the core passes."""
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):  # a hint that exists for type checkers alone
        hints = {}
    parameters = inspect.signature(factory).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: hints.get(p.name, Any) for p in named if p.name not in GIVEN_BY_THE_CORE}


def _container(hint: Any) -> str | None:
    """How a value with commas is meant, if at all."""
    for one in typing.get_args(hint) or ():
        if _container(one):
            return _container(one)
    origin = typing.get_origin(hint) or hint
    if origin in (list, tuple, Sequence):
        return "list"
    return "mapping" if origin in (dict, Mapping) else None


def _commas(argv: list[str], lists: Mapping[str, str]) -> list[str]:
    """`a,b` for lists and `a=1,b=2` for mappings, written as JSON for the parser."""
    out = list(argv)
    for at, one in enumerate(argv):
        flag, equals, value = one.partition("=")
        kind = lists.get(flag.lstrip("-")) if flag.startswith("--") else None
        if not kind or (not equals and at + 1 == len(argv)):
            continue
        text = value if equals else argv[at + 1]
        if text[:1] not in "[{":
            text = json.dumps(_split(flag, text, kind))
        if equals:
            out[at] = f"{flag}={text}"
        else:
            out[at + 1] = text
    return out


def _split(flag: str, text: str, kind: str) -> list[str] | dict[str, str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind == "list":
        return [yaml.safe_load(part) if re.fullmatch(r"[-+.\de]+", part) else part for part in parts]
    pairs = [part.partition("=") for part in parts]
    for name, equals, _ in pairs:
        if not equals:
            raise UserError(f"{flag} takes name=value pairs with commas between, and {name!r} has no value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def normalise(argv: Sequence[str]) -> list[str]:
    """`--batch-size` is `--batch_size`, `--encoder X` is `--encoder.name X`."""
    out = []
    for one in argv:
        if one.startswith("--"):
            flag, equals, value = one.partition("=")
            flag = flag.replace("-", "_").replace("__", "--", 1)
            if flag in ("--encoder", "--view", "--reader", "--method"):
                flag += ".name"
            one = flag + equals + value
        out.append(one)
    return out


def value_of(argv: Sequence[str], flag: str) -> str | None:
    """The last value of a flag in normalised arguments, before they are parsed."""
    found = None
    for at, one in enumerate(argv):
        if one == flag and at + 1 < len(argv):
            found = argv[at + 1]
        elif one.startswith(flag + "="):
            found = one.partition("=")[2]
    return found


def take_settings(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take every `--set part.option=value` out of the arguments."""
    rest: list[str] = []
    settings: dict[str, Any] = {}
    parts = iter(argv)
    for one in parts:
        if one == "--set" or one.startswith("--set="):
            text = one[6:] if "=" in one else next(parts, "")
            key, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"--set takes part.option=value, as in --set contrast.temperature=0.5, not {text!r}")
            settings[key.strip().replace("-", "_")] = parsed(value)
        else:
            rest.append(one)
    return rest, settings


def take_choices(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--term NAME:option=value,...`, any number of them, and a method's other choices out of the arguments."""
    rest: list[str] = []
    choices: dict[str, Any] = {}
    parts = iter(argv)
    for one in parts:
        flag, equals, value = one.partition("=")
        name = flag.removeprefix("--")
        if flag not in COMPOSE:
            rest.append(one)
            continue
        text = value if equals else next(parts, "")
        if not text or text.startswith("--"):
            raise UserError(f"{flag} wants {COMPOSE[flag][0]}")
        if name == "term":
            choices.setdefault("terms", []).append(text)
        else:
            choices[name] = text
    return rest, choices


def factory_of(registry: Registry, what: str, name: str | None) -> tuple[str, Callable[..., Any]]:
    """The named factory of a kind, or the domain's first."""
    table: Mapping[str, Callable[..., Any]] = getattr(registry, what + "s")
    if not table:
        raise UserError(f"domain {registry.domain!r} offers no {what}")
    name = name or next(iter(table))
    return name, choose(what, name, table)


def _sentence(message: str, parser: Parser) -> str:
    text = " ".join(message.split())
    found = re.search(r"[Uu]nrecognized arguments: (--[\w.]+)", text)
    if found:
        flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
        shown = [flag.replace("_", "-").replace("----", "--") for flag in flags]
        wrong = "--" + found[1][2:].replace("_", "-")
        return f"no flag is called {wrong}; {nearest(wrong, shown)}"
    found = re.search(r'Parser key "([\w.]+)": ?(.*)', text)
    if found:
        return f"--{found[1].replace('_', '-')}: {found[2]}"
    return text


def plain(namespace: Namespace) -> dict[str, Any]:
    """A namespace as nested dictionaries."""
    data = namespace.as_dict()
    return {key: value for key, value in data.items() if not key.startswith("__")}
