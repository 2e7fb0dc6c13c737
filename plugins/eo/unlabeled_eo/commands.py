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


def evaluate_segmentation(arguments: list[str]) -> None:
    """Intersection over union of a linear probe of frozen maps, beside its baselines: RUN IMAGES MASKS."""
    from unlabeled.cli.parser import CommandParser
    from unlabeled.cli.tables import print_rows
    from unlabeled.training.distributed import pick_device
    from unlabeled_eo.segmentation import segment

    parser = CommandParser("unlabeled eo evaluate-segmentation", description="A linear probe of frozen maps.")
    parser.add_argument("run", help="a run's folder; several (one a pre-training seed) with commas between")
    parser.add_argument("images", help="what the run's reader takes")
    parser.add_argument("masks", help="rasters of class numbers by the names of the scenes; 255 is not labelled")
    parser.add_argument("--groups", default="scene", help="kept on one side of the split: what the reader calls them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", help="also write the scores to this file")
    parser.add_argument("--device", default="auto")
    flags = parser.parse_args(arguments)
    runs = [part.strip() for part in flags.run.split(",")]
    device = pick_device(flags.device)
    scores = segment(runs, flags.images, flags.masks, groups=flags.groups, seeds=flags.seeds, device=device)
    print_rows([score.row() for score in scores])
    if flags.json:
        Path(flags.json).write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "leakage": leakage,
    "evaluate-segmentation": evaluate_segmentation,
}
