"""Commands under `unlabeled audio`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from unlabeled.cli.parser import CommandParser
from unlabeled.errors import UserError


def embed_frames(arguments: list[str]) -> None:
    """Write a row of numbers for every moment of DATA, with its time: RUN DATA -o FILE.npz."""
    parser = CommandParser("unlabeled audio embed-frames", description="Write numbers for every moment of DATA.")
    parser.add_argument("run", help="a run's folder, or its encoder folder")
    parser.add_argument("data", help="what the run's reader takes")
    parser.add_argument("-o", "--output", required=True, help="FILE.npz")
    parser.add_argument("--device", default="auto")
    flags = parser.parse_args(arguments)
    from unlabeled.training.distributed import pick_device
    from unlabeled_audio.moments import embed_moments, save

    if Path(flags.output).suffix != ".npz":
        raise UserError(f"embed-frames writes .npz: call it {Path(flags.output).with_suffix('.npz')}")
    made = embed_moments(flags.run, flags.data, pick_device(flags.device))
    save(made, Path(flags.output))
    count, width = made.embeddings.shape
    print(f"{count:,} moments of {len(set(made.files)):,} files × {width} numbers in {flags.output}")
    for item in made.broken[:20]:
        print(f"broken, left out: {item.name}: {item.reason}")


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {"embed-frames": embed_frames}
