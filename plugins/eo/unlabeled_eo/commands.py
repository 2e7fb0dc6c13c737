"""Commands of Earth observation beside those of every domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path


def leakage(arguments: list[str]) -> None:
    """What chip size, border and metadata alone tell of the labels: DATA --label SPEC [--test DATA | --groups SPEC]."""
    from unlabeled.cli.flags import Parser, options_of, plain
    from unlabeled.cli.tables import print_rows
    from unlabeled_eo.leakage import panel
    from unlabeled_eo.readers import EOReader

    parser = Parser("eo leakage", "Tell what chip size, border and metadata alone say of the labels.")
    parser.add_argument("data", type=str, help="chips to fit on")
    parser.add_argument("--label", type=str, required=True, help="as `evaluate` takes it")
    parser.add_argument("--test", type=str, help="chips to test on; none: a fifth of DATA")
    parser.add_argument("--groups", type=str, help="keep groups on one side, by what the reader calls them: scene")
    parser.add_argument("--json", type=str, help="also write the panel to this file")
    parser.add_factory(EOReader, None, set())
    flags = plain(parser.read(arguments))
    options = {name: flags[name] for name in options_of(EOReader)}
    train = EOReader(flags["data"], **options)
    test = EOReader(flags["test"], facts=train.facts, **options) if flags["test"] else None
    leaks = panel(train, flags["label"], test, flags["groups"])
    print_rows([{"from": one.what, "numbers": str(one.numbers), "accuracy": f"{one.accuracy:.3f}"} for one in leaks])
    if flags["json"]:
        Path(flags["json"]).write_text(json.dumps([asdict(one) for one in leaks], indent=1) + "\n")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {"leakage": leakage}
