"""Crops a second against MONAI's own pipeline, memory of crops from a large volume, and what hidden tokens save.

Writes docs/results/medical_speed.json. Processor seconds of one thread, so that other work here counts little.

    python benchmarks/medical_speed.py ../shared/data/medical/hippocampus/images [--crops 400]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unlabeled.randomness import Draws, sample_keys
from unlabeled_medical.encoders import ViT
from unlabeled_medical.readers import VolumeReader
from unlabeled_medical.views import Crops

CROP, BATCH, LARGE = 32, 8, (600, 512, 512)
torch.set_num_threads(1)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(data: str, cache: str, crops: int) -> float:
    """Global crops a second: read, cut, scaled, mirrored, turned, intensities changed."""
    reader = VolumeReader(data, cache=cache)
    view = Crops(reader.facts, crop=CROP)

    def work() -> None:
        for start in range(0, crops, BATCH):
            numbers = torch.arange(start, start + BATCH) % len(reader)
            keys = sample_keys(0, start, numbers)
            rows = [Draws(keys[row : row + 1]).fork("sample") for row in range(BATCH)]
            samples = [view.sample(reader[n], "global", row) for n, row in zip(numbers.tolist(), rows, strict=True)]
            batch = {name: torch.stack([torch.as_tensor(one[name]) for one in samples]) for name in samples[0]}
            view.batch(batch, "global", Draws(keys).fork("batch"))

    work()
    return crops / seconds(work)


def monai(data: str, cache: str, crops: int) -> float:
    """The same by PersistentDataset and MONAI's random transforms, with the same ranges and probabilities."""
    from monai import transforms as t
    from monai.data.dataset import PersistentDataset

    side = (CROP,) * 3
    change = t.Compose(
        [
            t.LoadImaged("image", image_only=True, ensure_channel_first=True),
            t.Orientationd("image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            t.NormalizeIntensityd("image", nonzero=True),
            t.SpatialPadd("image", side),
            t.RandZoomd("image", prob=1.0, min_zoom=0.7, max_zoom=1.4, keep_size=False),
            t.SpatialPadd("image", side),
            t.RandSpatialCropd("image", side, random_size=False),
            *(t.RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in range(3)),
            t.RandRotated("image", range_x=0.52, range_y=0.52, range_z=0.52, prob=0.2),
            t.RandGaussianNoised("image", prob=0.1, std=0.3),
            t.RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
            t.RandScaleIntensityd("image", factors=0.25, prob=0.15),
            t.RandScaleIntensityFixedMeand("image", factors=0.25, prob=0.15),
            t.RandSimulateLowResolutiond("image", prob=0.1, zoom_range=(0.5, 1.0)),
            t.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
        ]
    )
    files = [{"image": str(path)} for path in sorted(Path(data).glob("*.nii.gz"))]
    dataset = PersistentDataset(files, change, cache_dir=cache)

    def work() -> None:
        for start in range(0, crops, BATCH):
            torch.stack([dataset[at % len(files)]["image"].as_tensor() for at in range(start, start + BATCH)])

    work()
    return crops / seconds(work)


MEMORY = """
import sys, numpy as np, torch
from unlabeled.randomness import Draws, sample_keys
from unlabeled_medical.views import Crops
def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) // 1024
facts = {"shape": [600, 512, 512], "plane": "all", "intensity": "ct"}
view, before = Crops(facts, crop=96), peak()
for number in range(100 * int(sys.argv[2])):
    image = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
    levels = torch.tensor([[-1000.0, 1000, 0, 1000, -1]])
    sample = {"image": image, "levels": levels, "spacing": torch.ones(3), "foreground": torch.zeros(1, 3).long()}
    view.sample(sample, "global", Draws(sample_keys(0, 0, torch.tensor([number]))))
print(before, peak())
"""


def memory(folder: str) -> dict[str, int]:
    """Peak resident MB of a process before and after it cuts 100 crops of 96³ from 600 × 512 × 512 int16."""
    path = Path(folder) / "large.npy"
    big = np.lib.format.open_memmap(path, "w+", np.int16, (1, *LARGE))
    for start in range(0, LARGE[0], 50):
        big[:, start : start + 50] = np.random.default_rng(start).integers(-1000, 1000, (50, *LARGE[1:]), np.int16)
    del big
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path), "1"], capture_output=True, text=True, check=True)
    before, peak = map(int, done.stdout.split())
    return {"imports_mb": before, "peak_mb": peak, "volume_mb": path.stat().st_size >> 20}


def hiding() -> float:
    """How many times faster a ViT's forward and backward pass is at mask ratio .75 than at 0."""
    encoder = ViT({"channels": 1}, size="tiny", patch=8)
    tokens = encoder.tokenize({"image": torch.randn(2, 1, 64, 64, 64)})
    hidden = torch.arange(tokens.valid.shape[1]).expand(2, -1) % 4 != 0

    def step(what: torch.Tensor | None) -> None:
        encoder(tokens, what).instances.sum().backward()

    best = {}
    for name, what in (("all", None), ("quarter", hidden)):
        step(what)
        best[name] = min(seconds(lambda chosen=what: step(chosen)) for _ in range(3))  # type: ignore[misc]
    return best["all"] / best["quarter"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument("--out", default="docs/results/medical_speed.json")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as theirs:
        found = {
            "crops_per_second": round(ours(flags.data, cache, flags.crops), 1),
            "crops_per_second_monai": round(monai(flags.data, theirs, flags.crops), 1),
            "memory": memory(cache),
            "vit_step_at_75_percent_hidden": round(hiding(), 2),
        }
    Path(flags.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
