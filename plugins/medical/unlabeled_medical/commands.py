"""Commands under `unlabeled medical`: segmentation with few labels, and a sheet of pictures."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unlabeled.cli.parser import CommandParser
from unlabeled.errors import UserError


def _bounds(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.strip("[]").split(","))
    except ValueError:
        raise ArgumentTypeError(f"it takes two numbers, as in 0.9,1.1, not {text!r}") from None
    return low, high


VIEW: Mapping[str, Callable[[str], Any]] = {  # of crops with labels
    "crop": int,
    "flips": str,
    "scale": _bounds,
    "zoomed": float,
    "turn": float,
    "strength": float,
}


def evaluate_segmentation(arguments: list[str]) -> None:
    """Dice of a frozen probe and of fine-tuning, beside training from scratch: RUN IMAGES LABELS."""
    from dataclasses import fields

    from unlabeled.cli.tables import print_rows
    from unlabeled.training.distributed import pick_device
    from unlabeled_medical.segmentation import Budget, save, segment

    about = "Dice and surface distance of a frozen probe and of fine-tuning, beside training from scratch."
    parser = CommandParser("unlabeled medical evaluate-segmentation", description=about)
    parser.add_argument("run", help="a run's folder; several (one a pre-training seed) with commas between")
    parser.add_argument("images", help="what the run's reader takes")
    parser.add_argument("labels", help="segmentations by the same names")
    parser.add_argument("--test", type=int, default=0, help="how many of the last volumes are tested on")
    parser.add_argument("--shots", default="100%", metavar="5%,25%,100%", help="shares of the labels")
    parser.add_argument("--modes", default="probe,finetune")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    for option in fields(Budget):
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=type(option.default), default=option.default)
    for name, kind in VIEW.items():
        parser.add_argument(f"--view.{name}", type=kind, help="of the crops trained on; else as in pre-training")
    parser.add_argument("--json", help="also write the scores to this file")
    parser.add_argument("--device", default="auto")
    flags = parser.parse_args(arguments)
    view = {name: value for name in VIEW if (value := getattr(flags, f"view.{name}")) is not None}
    if not view:  # by far the most that is to be gained, and seldom thought of
        print(
            "note: crops with labels are mirrored and zoomed as in pre-training; "
            "where a side or a size tells structures apart, say --view.flips and --view.scale"
        )
    scores = segment(
        flags.run.split(","),
        flags.images,
        flags.labels,
        test=flags.test,
        shares=[_share(text) for text in flags.shots.split(",")],
        modes=flags.modes.split(","),
        seeds=flags.seeds,
        first_seed=flags.first_seed,
        budget=Budget(**{option.name: getattr(flags, option.name) for option in fields(Budget)}),
        view=view,
        device=pick_device(flags.device),
        say=lambda line: print(line, flush=True),
    )
    print_rows([score.row() for score in scores])
    if flags.json:
        save(scores, Path(flags.json))


def _share(text: str) -> float:
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise UserError(f"--shots takes shares of the labels (5%,25%), not {text!r}") from None


def sheet(arguments: list[str]) -> None:
    """Draw middle slices and random views of some volumes: DATA -o FILE.png."""
    from unlabeled_medical.readers import VolumeReader
    from unlabeled_medical.sheet import contact_sheet
    from unlabeled_medical.views import Crops

    parser = CommandParser("unlabeled medical sheet", description="Draw middle slices and views of some volumes.")
    parser.add_argument("data", help="files to look at")
    parser.add_argument("-o", "--output", required=True, help="FILE.png")
    parser.add_argument("--most", type=int, default=8, help="volumes to draw")
    parser.add_argument("--intensity", default="auto")
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--crop", type=int)
    flags = parser.parse_args(arguments)
    reader = VolumeReader(flags.data, intensity=flags.intensity, spacing=flags.spacing)
    drawn = contact_sheet(reader, Crops(reader.facts, crop=flags.crop), Path(flags.output), max(1, flags.most))
    print(f"{drawn} volumes in {flags.output}: slices across depth, height and width; plain, global, global, local")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "evaluate-segmentation": evaluate_segmentation,
    "sheet": sheet,
}
