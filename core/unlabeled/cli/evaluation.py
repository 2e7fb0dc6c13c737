"""`evaluate`: the flags of every protocol."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from unlabeled.cli.flags import Parser, normalise, plain
from unlabeled.errors import UserError, choose
from unlabeled.plugins import Registry

ABOUT = "Judge a run by labels, beside the untrained encoder and the raw data."


def evaluate(registry: Registry, arguments: Sequence[str]) -> int:
    """Probe a run's frozen features or fine-tune it, beside the untrained encoder and the raw data."""
    from unlabeled.cli.tables import print_result
    from unlabeled.evaluation.dense import dense
    from unlabeled.evaluation.evaluate import PROTOCOLS
    from unlabeled.evaluation.evaluate import evaluate as measure
    from unlabeled.evaluation.finetune import Budget, finetune
    from unlabeled.evaluation.kept import keep
    from unlabeled.saved import describe
    from unlabeled.training.distributed import pick_device

    flags = plain(_parser(registry, Budget).read(normalise(arguments)))
    protocol = flags["protocol"]
    choose("protocol", protocol, {**PROTOCOLS, "dense": (), "finetune": ()})
    if protocol in ("dense", "finetune") and flags["ood"]:
        raise UserError(f"--ood is of --protocol ood, not of {protocol}")
    tuning = _tuning(flags, Budget, protocol)
    runs = [part.strip() for part in flags["run"].split(",")]
    for one in runs:
        same_domain(registry, describe(one).domain, one)
    common = {name: flags[name] for name in ("label", "test", "seeds", "groups", "folds")}
    common |= {"shots": flags["shots"].split(","), "device": pick_device(flags["device"])}
    if protocol == "finetune":
        result = finetune(runs, flags["train"], budget=Budget(**tuning), say=_say, **common)
    elif protocol == "dense":
        result = dense(runs, flags["train"], **common)
    else:
        result = measure(runs, flags["train"], protocol=protocol, ood=flags["ood"], **common)
    print_result(result)
    keep(result, lambda sentence: print(f"warning: {sentence}", file=sys.stderr))
    if flags["json"]:
        result.save(Path(flags["json"]))
    return 0


def _parser(registry: Registry, budget: type[Any]) -> Parser:
    parser = Parser(f"{registry.domain} evaluate", ABOUT)
    parser.add_argument("run", help="a run's folder; several (one a seed) with commas between")
    parser.add_argument("train", help="labelled data to fit the probes on")
    parser.add_argument("--label", help="what to predict: what the reader calls it, or TABLE.csv:COLUMN")
    protocols = "probe (linear and knn), linear, knn, retrieval, clustering, ood, multilabel, dense, or finetune"
    parser.add_argument("--protocol", default="probe", help=protocols)
    parser.add_argument("--ood", metavar="DATA", help="of --protocol ood: samples of another kind")
    parser.add_argument("--test", help="labelled data to test on (default: a fifth of the first)")
    parser.add_argument("--groups", help="leave out each group in turn: what the reader calls it, as --label")
    parser.add_argument("--folds", type=int, help="cut the rows into so many parts and leave out each in turn")
    parser.add_argument("--seeds", type=int, default=3)
    few = "labels to fit on: shares, or rows a class (10,20,40)"
    parser.add_argument("--shots", type=str, default="100%", metavar="1%,10%,100%", help=few)
    parser.add_argument("--json", help="also write the result to this file")
    parser.add_argument("--device", default="auto")
    parser.add_factory(budget, None, set())
    return parser


def _tuning(flags: dict[str, Any], budget: type[Any], protocol: str) -> dict[str, Any]:
    """The flags of fine-tuning.

    Raises:
        UserError: they are given to another protocol, which would not heed them.
    """
    found = {one.name: flags[one.name] for one in fields(budget)}
    for one in fields(budget):
        value = found[one.name]
        if protocol != "finetune" and (tuple(value) if isinstance(value, list) else value) != one.default:
            raise UserError(f"--{one.name.replace('_', '-')} is of --protocol finetune, not of {protocol}")
    return found


def _say(line: str) -> None:
    print(line, flush=True)


def same_domain(registry: Registry, domain: str, run: str) -> None:
    """Raises UserError where a run holds an encoder of another domain."""
    if domain != registry.domain:
        raise UserError(f"{run} holds an encoder of domain {domain!r}: use `unlabeled {domain} ...`")
