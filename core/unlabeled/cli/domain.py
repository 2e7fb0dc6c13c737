"""Commands of a domain: pretrain, inspect, embed, evaluate, export, and what its plugins add."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.cli.embedding import embed
from unlabeled.cli.evaluation import evaluate, same_domain
from unlabeled.cli.exporting import export
from unlabeled.cli.flags import (
    COMPOSE,
    Parser,
    factory_of,
    normalise,
    options_of,
    plain,
    take_choices,
    take_settings,
    value_of,
)
from unlabeled.config import Config, Training, config_from, load_config, method_from, recipe_layers
from unlabeled.contract import Reader
from unlabeled.errors import UserError, nearest
from unlabeled.files import absolute
from unlabeled.plugins import Registry

if TYPE_CHECKING:  # what trains costs an import of torch
    from unlabeled.training.folder import RunFolder
    from unlabeled.training.loop import Outcome

READER_FLAGS = {"data", "method", "out", "resume", "config", "set", "help"}


def run(registry: Registry, arguments: list[str]) -> int:
    """Run one command of a domain."""
    commands: dict[str, Callable[[Registry, list[str]], int]] = {
        "pretrain": pretrain,
        "inspect": inspect,
        "embed": embed,
        "evaluate": evaluate,
        "export": export,
    }
    for sentence in registry.broken.values():
        print(f"warning: {sentence}", file=sys.stderr)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: unlabeled {registry.domain} <command> ...\n")
        helps = {name: one.__doc__ or "" for name, one in [*commands.items(), *registry.commands.items()]}
        width = max(map(len, helps))
        for name, text in helps.items():
            print(f"  {name:{width}}  {text.partition(chr(10))[0]}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in commands:
        return commands[name](registry, rest)
    if name in registry.commands:
        registry.commands[name](rest)
        return 0
    raise UserError(
        f"domain {registry.domain!r} has no command {name!r}; {nearest(name, [*commands, *registry.commands])}"
    )


# ---- pretrain


def pretrain(registry: Registry, arguments: Sequence[str]) -> int:
    """Train an encoder on DATA without labels."""
    from unlabeled.training.folder import RunFolder
    from unlabeled.training.pretrain import run as train

    config, out, resume = pretrain_config(registry, arguments)
    folder = RunFolder(out)
    outcome = train(config, folder, resume=resume)
    code = _report(registry, outcome, folder, out) if os.environ.get("RANK", "0") == "0" else 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # All is written and the group is left; threads of its library that outlive Python can still abort a process
        # (seen once in some sixty runs, with gloo), and torchrun then calls a finished run failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _report(registry: Registry, outcome: Outcome, folder: RunFolder, out: str) -> int:
    """Say how a run ended; returns the exit status."""
    again = f"unlabeled {registry.domain} pretrain --resume --out {out}"
    if outcome.signal:
        print(f"stopped at step {outcome.step} of {outcome.steps} and saved; go on with: {again}")
        return 128 + outcome.signal
    print(f"trained {outcome.steps} steps; the encoder is in {folder.encoder}")
    for alarm in outcome.alarms:
        print(f"warning: {alarm}")
    return 0


def pretrain_config(registry: Registry, arguments: Sequence[str]) -> tuple[Config, str, bool]:
    """The configuration that flags describe, the run's folder, and whether to resume.

    Later ones win: the method's row, the domain's recipes, the config file (or the resumed run's), flags.
    """
    argv, settings = take_settings(normalise(arguments))
    argv, choices = take_choices(argv)
    base = _base(registry, argv)
    given = _method(base.get("method"), value_of(argv, "--method.name"), choices, settings)
    asks_help = "--help" in argv or "-h" in argv
    if not given and not asks_help:
        raise UserError(f"no method chosen: give --method, or --term; {nearest('', registry.methods)}")
    layers = recipe_layers(given, registry) if given else {}
    layers.pop("set", None)
    view = layers.pop("view", None)
    base = {**base, "view": base.get("view") or view}
    parser = _pretrain_parser(registry, argv, base, layers)
    flags = plain(parser.read(argv))
    data = flags.pop("data") or base.get("data")
    if not data:
        raise UserError(f"no data given: unlabeled {registry.domain} pretrain DATA --method ...")
    out = flags.pop("out") or _fresh(registry.domain or "", method_from(given, registry)[0])
    resume, init = flags.pop("resume"), flags.pop("init") or base.get("init")
    reader_name, reader = factory_of(registry, "reader", value_of(argv, "--reader.name") or _name(base, "reader"))
    sections: dict[str, Any] = {
        "domain": registry.domain,
        "data": absolute(data),
        "method": given,
        "reader": {"name": reader_name, **{option: flags[option] for option in options_of(reader)}},
        "view": flags["view"],
        "encoder": flags["encoder"],
        "labels": flags.pop("labels") or base.get("labels"),
        "init": absolute(init) if init else "",
        "training": {field: flags[field] for field in options_of(Training)},
    }
    return config_from(sections, registry), out, resume


def _method(base: Any, name: str | None, choices: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The method that flags describe: a row or the base's with choices replaced and terms added, or terms alone."""
    given: dict[str, Any] = {"name": base} if isinstance(base, str) else dict(base or {})
    given = {"name": name} if name else given
    terms = choices.pop("terms", [])
    if given:
        given |= {**choices, "add": [*(given.get("add") or []), *terms]}
    elif terms:
        given = {"terms": terms, **choices}
    return {**given, "set": {**(given.get("set") or {}), **settings}} if given else {}


def _base(registry: Registry, argv: Sequence[str]) -> dict[str, Any]:
    """What flags start from: the resumed run's configuration, or a config file; the encoder of --init RUN."""
    from unlabeled.saved import describe
    from unlabeled.training.folder import RunFolder

    out, file, init = value_of(argv, "--out"), value_of(argv, "--config"), value_of(argv, "--init")
    if "--resume" in argv:
        if not out:
            raise UserError("--resume goes on with the run in --out; say which")
        return RunFolder(out).read_config()
    base = load_config(Path(file)) if file else {}
    init = init or str(base.get("init") or "")
    if init and Path(init).is_dir():
        saved = describe(init)
        same_domain(registry, saved.domain, init)
        base = {"encoder": saved.encoder.data(), **base}
    return base


def _pretrain_parser(registry: Registry, argv: Sequence[str], base: dict[str, Any], layers: dict[str, Any]) -> Parser:
    parser = Parser(f"{registry.domain} pretrain", "Train an encoder on DATA without labels.")
    parser.add_argument("data", nargs="?", help="files to learn from")
    parser.add_argument("--method.name", help=f"one of: {', '.join(registry.methods)}")
    parser.add_argument("--out", help="the run's folder (default: runs/<domain>-<method>-<number>)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--config", help="a config.yaml to start from; flags win over it")
    parser.add_argument("--set", metavar="PART.OPTION=VALUE", help="an option of the method, any number of times")
    for flag, (form, says) in COMPOSE.items():
        parser.add_argument(flag, metavar=form, help=says)
    parser.add_argument("--labels", help="the label that a method which learns from labels is told")
    parser.add_argument("--init", help="start from a run, a weights file, timm:NAME, torchvision:NAME or hf:ID")
    reader_name, reader = factory_of(registry, "reader", value_of(argv, "--reader.name") or _name(base, "reader"))
    parser.add_argument("--reader.name", default=reader_name, help=f"one of: {', '.join(registry.readers)}")
    parser.add_factory(reader, None, set())
    defaults: dict[str, Any] = _without_name(base.get("reader"))
    for what in ("encoder", "view"):
        name, factory = factory_of(registry, what, value_of(argv, f"--{what}.name") or _name(base, what))
        known = getattr(registry, what + "s")
        parser.add_argument(f"--{what}.name", default=name, help=f"one of: {', '.join(known)}")
        parser.add_factory(factory, what, set())
        if name == _name(base, what):
            defaults |= {f"{what}.{option}": value for option, value in _without_name(base.get(what)).items()}
    parser.add_factory(Training, None, set())
    parser.set_defaults({**defaults, **layers, **(base.get("training") or {})})
    return parser


def _name(base: dict[str, Any], what: str) -> str | None:
    value = base.get(what)
    return value if isinstance(value, str) or value is None else value.get("name")


def _without_name(value: Any) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key != "name"} if isinstance(value, dict) else {}


def _fresh(domain: str, method: str) -> str:
    """A run folder that is not there yet."""
    number = 1
    while Path(f"runs/{domain}-{method}-{number}").exists():
        number += 1
    return f"runs/{domain}-{method}-{number}"


# ---- inspect


def inspect(registry: Registry, arguments: Sequence[str]) -> int:
    """Show what the reader sees in DATA, and what is broken."""
    argv = normalise(arguments)
    name, factory = factory_of(registry, "reader", value_of(argv, "--reader.name"))
    parser = Parser(f"{registry.domain} inspect", "Show what the reader sees in DATA, and what is broken.")
    parser.add_argument("data", help="files to look at")
    parser.add_argument("--reader.name", default=name, help=f"one of: {', '.join(registry.readers)}")
    parser.add_argument("--most", type=int, default=1000, help="samples to try to read")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="draw some samples and the views that training makes of them"
    )
    view, make_view = factory_of(registry, "view", value_of(argv, "--view.name"))
    parser.add_argument("--view.name", default=view, help=f"for --sheet, one of: {', '.join(registry.views)}")
    parser.add_factory(make_view, "view", set())
    parser.add_factory(factory, None, set())
    flags = plain(parser.read(argv))
    reader: Reader = registry.make("reader", name, flags["data"], **{o: flags[o] for o in options_of(factory)})
    from unlabeled.cli.tables import print_rows

    print(f"{flags['data']}: {len(reader):,} samples")
    print_rows(reader.summary())
    for notice in getattr(reader, "notices", ()):
        print(f"note: {notice}")
    broken = _try_reading(reader, flags["most"])
    tried = min(len(reader), flags["most"])
    print(f"{tried - len(broken):,} of {tried:,} samples tried can be read")
    for item, reason in broken[:20]:
        print(f"broken: {item}: {reason}")
    if flags["sheet"]:
        from unlabeled.cli.sheet import write_sheet

        options = _without_name(flags["view"])
        write_sheet(Path(flags["sheet"]), reader, registry.make("view", view, reader.facts, **options), registry)
        print(f"some samples and views of them are drawn in {flags['sheet']}")
    return 0


def _try_reading(reader: Reader, most: int) -> list[tuple[str, str]]:
    """Name and reason of samples that cannot be read, among the first `most`."""
    broken = []
    for index in range(min(len(reader), most)):
        try:
            reader[index]
        except Exception as error:  # that is what inspect is for
            broken.append((reader.name(index), f"{type(error).__name__}: {error}"))
    return broken
