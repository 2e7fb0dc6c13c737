"""Windows a second from one large tiled GeoTIFF, against torchgeo's pipeline; and speckle against NumPy's.

Writes docs/results/eo_speed.json. torchgeo is measured where it is installed (`pip install torchgeo`).

    python benchmarks/eo_speed.py [--side 20000] [--windows 2000]

The scene is made here: uint16, one band, 512 × 512 tiles, deflate; and once more not compressed (plain), as measured
Sentinel-1 products are. Both pipelines draw random windows of 256 pixels in two worker processes, in batches of 32, as
float32 tensors; ours also crops and hands on what is valid. Rounds take turns, so that other work on the machine falls
on both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from unlabeled import plugins
from unlabeled.data.batches import Batches, Order, loader
from unlabeled.randomness import Draws, sample_keys
from unlabeled_eo.rasters import CACHE
from unlabeled_eo.readers import EOReader
from unlabeled_eo.speckle import speckled

CHIP, BATCH, WORKERS, TILE = 256, 32, 2, 512
PARTS = ("windows", "plain", "decoding", "memory", "speckle")
torch.set_num_threads(1)


def scene(path: Path, side: int, compress: str = "deflate") -> None:
    """Speckle, tile by tile."""
    how: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint16"}
    how |= {
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": compress,
        "crs": "EPSG:32633",
    }
    if compress == "deflate":
        how["zlevel"] = 1
    place = rasterio.Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 5_000_000.0)
    tile = np.random.default_rng(0).gamma(4, 50, (TILE, side + TILE)).astype(np.uint16)
    with rasterio.open(path, "w", transform=place, **how) as file:
        for row in range(0, side, TILE):
            height = min(TILE, side - row)
            shift = row // TILE % TILE
            window = rasterio.windows.Window(0, row, side, height)
            file.write(tile[None, :height, shift : shift + side], window=window)


Epoch = Callable[[], int]


def tiles(path: Path, windows: int, seed: int) -> Epoch:
    """Windows that each lie within a tile."""
    return ours(path, windows, seed, "tiles")


def ours(path: Path, windows: int, seed: int, sampler: str = "random") -> Epoch:
    """An epoch of plain views, as a run reads them; it returns how many there were."""
    registry = plugins.load("eo")
    options: dict[str, Any] = {"sampler": sampler, "samples": windows, "chip": CHIP, "sampler_seed": seed}
    reader = EOReader(str(path), stored="amplitude", scale="amplitude", **options)
    view = registry.make("view", "sar", reader.facts, crop=CHIP, flips="")
    order = Order(torch.arange(len(reader)), BATCH, 0)
    batches = Batches(reader, view, {"plain": 1}, order, registry, True)
    return lambda: sum(
        len(step.views["plain"]["image"]) for step in loader(batches, 0, order.epoch_steps, WORKERS, False)
    )


def torchgeos(path: Path, windows: int, seed: int) -> Epoch:
    """An epoch of RandomGeoSampler."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Scene(RasterDataset):  # type: ignore[misc]
        filename_glob = path.name

    data = Scene(str(path.parent))
    torch.manual_seed(seed)
    sampler = RandomGeoSampler(data, size=CHIP, length=windows)
    batches: DataLoader[Any] = DataLoader(data, BATCH, sampler=sampler, num_workers=WORKERS, collate_fn=stack_samples)
    return lambda: sum(len(batch["image"]) for batch in batches)


def timed(epoch: Epoch) -> dict[str, float]:
    """Windows a second of the clock and of all processors, workers' start included."""

    def spent() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in both)

    before, start = spent(), time.perf_counter()
    count = epoch()
    return {"a second": count / (time.perf_counter() - start), "a processor second": count / (spent() - before)}


def speckle_times(chips: int, side: int = 128) -> dict[str, float]:
    """Milliseconds a chip of gamma speckle, by NumPy one chip after another and by us in a batch."""
    chance = np.random.default_rng(0)
    image = torch.rand(chips, 1, side, side)
    start = time.perf_counter()
    for one in image.numpy():
        one * chance.gamma(4, 0.25, one.shape)
    numpy = time.perf_counter() - start
    found = {"NumPy": 1000 * numpy / chips}
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            continue
        there, looks = image.to(device), torch.full((chips,), 4.0, device=device)
        draws = Draws(sample_keys(0, 0, torch.arange(chips)).to(device))
        speckled(there, looks, "linear", draws)
        times = []
        for _ in range(5):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            speckled(there, looks, "linear", draws)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        found[device] = 1000 * statistics.median(times) / chips
    return found


def decoding(path: Path, count: int) -> float:
    """Processor milliseconds that GDAL alone takes for a random window: no reader of them can take less."""
    corners = np.random.default_rng(0)
    with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path) as file:
        places = corners.integers(0, (file.width - CHIP, file.height - CHIP), (count, 2)).tolist()
        start = time.process_time()
        for left, top in places:
            file.read(1, window=rasterio.windows.Window(left, top, CHIP, CHIP))
        return 1000 * (time.process_time() - start) / count


def memory(path: Path, windows: int) -> dict[str, float]:
    """Largest resident memory in MB of a process that does nothing but read, and of one that has opened nothing yet."""
    code = (
        "import torch\nfrom unlabeled_eo.readers import EOReader\nimport unlabeled_eo.views, rasterio\n"
        # ru_maxrss would begin with what the process had that started this one
        "peak = lambda: next(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if 'VmHWM' in line)\n"
        "base = peak()\n"
        f"r = EOReader({str(path)!r}, sampler='random', samples={windows}, chip={CHIP}, stored='amplitude', "
        "scale='amplitude')\nfor i in range(len(r)): r[i]\n"
        "print(base, peak())"
    )
    import subprocess
    import sys

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return {"imports alone": float(out[0]), "after reading": float(out[1])}


def main() -> None:
    """Print and write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--windows", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, help="and leave the rest of --out as it is")
    parser.add_argument("--out", default="docs/results/eo_speed.json")
    flags = parser.parse_args()
    wanted = [flags.only] if flags.only else list(PARTS)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, no GPU"
    found: dict[str, Any] = {"machine": f"{machine}, {os.cpu_count()} processors", "torch": torch.__version__}
    if flags.only:
        found = json.loads(Path(flags.out).read_text())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        if "plain" in wanted:
            scene(path, flags.side, "none")
            found |= windows(path, flags, "windows, not compressed")
        if {"windows", "decoding", "memory"} & set(wanted):
            scene(path, flags.side)
            found["scene"] = f"{flags.side} × {flags.side} pixels, {path.stat().st_size / 2**20:.0f} MB"
        if "windows" in wanted:
            found |= windows(path, flags, "windows")
        if "decoding" in wanted:
            found["decoding alone, processor ms a window"] = decoding(path, flags.windows)
        if "memory" in wanted:
            found.setdefault("memory, MB", {})[f"torch {torch.__version__}"] = memory(path, flags.windows)
    if "speckle" in wanted:
        found["speckle, ms a chip of 128 × 128"] = speckle_times(256)
    Path(flags.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def windows(path: Path, flags: argparse.Namespace, name: str) -> dict[str, Any]:
    """Windows a second of a scene, ours and torchgeo's in turn."""
    found: dict[str, Any] = {}
    kinds: dict[str, Callable[[Path, int, int], Epoch]] = {"ours": ours, "ours, within tiles": tiles}
    try:
        import torchgeo

        kinds["torchgeo"], found["torchgeo"] = torchgeos, torchgeo.__version__
    except ImportError:
        print("torchgeo is not installed, and not measured")
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(flags.rounds):
        for kind, make in kinds.items():
            rounds[kind].append(timed(make(path, flags.windows, number)))
            print(kind, rounds[kind][-1], flush=True)
    found[name] = {
        kind: {what: statistics.median(one[what] for one in many) for what in many[0]} for kind, many in rounds.items()
    }
    return found


if __name__ == "__main__":
    main()
