"""Samples a second of `embed` against a loop that does nothing but the forward pass, on data made here.

    python benchmarks/embed_speed.py --json docs/results/embed_speed.json

The loop's batches lie in memory, read and viewed; `embed` reads files, encodes, and writes parts and an .npz.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unlabeled
from unlabeled.contract import to_device
from unlabeled.embedding import whole_batches
from unlabeled.saved import describe
from unlabeled.stored.write import embed_to_file
from unlabeled.training.distributed import pick_device


def chips(folder: Path, count: int) -> tuple[str, dict[str, Any]]:
    """Images of 64 × 64, and a ViT-S on patches of 8."""
    from PIL import Image

    random = np.random.default_rng(0)
    (folder / "chips").mkdir()
    for number in range(count):
        Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / "chips" / f"{number:05}.png")
    return str(folder / "chips"), {"name": "vit", "patch": 8}


def table(folder: Path, count: int) -> tuple[str, dict[str, Any]]:
    """Rows of 14 numbers, and the default transformer of cells."""
    x = np.random.default_rng(0).normal(size=(count, 14))
    lines = [",".join(f"c{at}" for at in range(14)), *(",".join(f"{value:.4f}" for value in row) for row in x)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "rows.csv"), {"name": "ft_transformer", "width": 192, "depth": 3}


def measure(domain: str, data: str, encoder: dict[str, Any], out: Path, device: torch.device, workers: int) -> Any:
    """Rates of the loop and of `embed`, each the best of three."""
    options: dict[str, Any] = {"steps": 1, "batch_size": 8, "quiet": True}
    options |= {"view": "optical"} if domain == "eo" else {}
    unlabeled.pretrain(domain, data, "simclr", out=out, encoder=encoder, **options)
    saved, model = describe(out), unlabeled.load(out).to(device)
    reader = saved.make_reader(data)
    numbers = torch.arange(len(reader))
    whole = list(whole_batches(reader, saved.make_view(), saved.registry, numbers, reader.embed_batch))
    batches = [to_device(batch, device) for _, batch, _ in whole]
    loop, embed, busy = [], [], []
    for _ in range(3):
        began = time.perf_counter()
        with torch.no_grad():
            for batch in batches:
                model(model.tokenize(batch)).instances.cpu()
        loop.append(len(reader) / (time.perf_counter() - began))
        made = embed_to_file(out, data, out / "x.npz", device=device, workers=workers)
        embed.append(made.rate)
        busy.append(made.busy)
    share = max(embed) / max(loop)
    print(f"{domain}: forward only {max(loop):,.0f}/s, embed {max(embed):,.0f}/s, {share:.0%} of it")
    return {
        "forward": round(max(loop)),
        "embed": round(max(embed)),
        "share": round(share, 3),
        "busy": round(max(busy), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = pick_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "device": name, "workers": options.workers}
    for domain, make, count in (("eo", chips, options.chips), ("tabular", table, options.rows)):
        with tempfile.TemporaryDirectory() as scratch:
            data, encoder = make(Path(scratch), count)
            found[domain] = measure(domain, data, encoder, Path(scratch) / "run", device, options.workers)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
