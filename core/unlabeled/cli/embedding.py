"""`embed`: embeddings of DATA to a file."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from unlabeled.cli.evaluation import same_domain
from unlabeled.cli.flags import Parser, normalise
from unlabeled.plugins import Registry

SHOWN = 20  # broken samples that are named


def embed(registry: Registry, arguments: Sequence[str]) -> int:
    """Write a row of numbers for every sample of DATA: RUN DATA -o FILE."""
    parser = Parser(f"{registry.domain} embed", "Write a row of numbers for every sample of DATA, or for every token.")
    parser.add_argument("run", help="a run's folder, or its encoder folder")
    parser.add_argument("data", help="files to embed")
    parser.add_argument("-o", "--output", required=True, help="FILE.parquet, .csv, .npz, .npy or .zarr")
    parser.add_argument("--what", default="instances", help="instances (a row a sample), or tokens (a row each)")
    parser.add_argument("--batch_size", type=int, help="samples at once (default: what suits their size)")
    parser.add_argument(
        "--workers", type=int, help="processes that read ahead, for each that encodes (default: 2 for a GPU)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes that encode; each has a GPU where there are"
    )
    parser.add_argument("--device", default="auto")
    flags = parser.read(normalise(arguments))
    import torch

    from unlabeled.saved import describe
    from unlabeled.stored.write import embed_to_file
    from unlabeled.training.distributed import pick_device

    same_domain(registry, describe(flags.run).domain, flags.run)
    device = "cuda" if flags.device == "auto" and pick_device("auto").type == "cuda" else pick_device(flags.device)
    out = Path(flags.output)
    made = embed_to_file(
        flags.run,
        flags.data,
        out,
        what=flags.what,
        batch_size=flags.batch_size,
        device=device,
        workers=flags.workers if flags.workers is not None else 2 * (torch.device(device).type == "cuda"),
        processes=flags.processes,
        say=_say,
    )
    tokens = f", {made.size.rows:,} tokens" if flags.what == "tokens" else ""
    print(f"{made.size.samples:,} samples{tokens} × {made.size.width} numbers in {out}")
    if made.rate:
        busy = "" if math.isnan(made.busy) else f"; the encoder was at work {made.busy:.0%} of the time"
        print(f"{made.rate:,.0f} samples a second{busy}")
    for name, reason in made.broken[:SHOWN]:
        print(f"broken, left out: {name}: {reason}")
    if len(made.broken) > SHOWN:
        print(f"{len(made.broken) - SHOWN:,} more are broken; `unlabeled {registry.domain} inspect` names them")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
