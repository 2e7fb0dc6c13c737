"""What frozen encoders know of pixels: a linear probe of their maps, beside an untrained encoder and raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unlabeled.contract import Batch, Sample, View, to_device
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.randomness import Draws, sample_keys
from unlabeled.saved import Saved, describe, load
from unlabeled_eo import statistics
from unlabeled_eo.classes import IGNORED
from unlabeled_eo.patches import ChipEncoder
from unlabeled_eo.readers import EOReader

FRESH = 1000  # first seed of untrained encoders, away from those of training
STEPS, BATCH, RATE = 300, 16, 1e-2
Maps = Callable[[Batch], list[Tensor]]


@dataclass(frozen=True)
class Score:
    """Intersection over union on the test chips, one a seed."""

    features: str
    classes: tuple[str, ...]
    iou: tuple[tuple[float, ...], ...]  # [seeds][classes], NaN where a class is neither there nor said

    def row(self) -> dict[str, str]:
        """As a table shows it."""
        table = np.array(self.iou)
        means = np.nanmean(table, 1)
        each = {f"class {name}": f"{np.nanmean(table[:, at]):.3f}" for at, name in enumerate(self.classes)}
        return {"features": self.features, "mean IoU": f"{means.mean():.3f} ± {means.std():.3f}", **each}


@dataclass(frozen=True)
class _Data:
    """Chips as the whole view cuts them, with their classes."""

    batch: Batch
    classes: Tensor  # [n, S, S] int64, IGNORED where nothing is known

    def rows(self, numbers: Sequence[int] | Tensor) -> Batch:
        index = torch.as_tensor(numbers)
        return {name: value[index] for name, value in self.batch.items()}


def segment(
    runs: Sequence[str | Path],
    images: str,
    masks: str,
    *,
    groups: str = "scene",
    seeds: int = 3,
    device: torch.device | None = None,
) -> list[Score]:
    """A linear probe of frozen maps: trained on four fifths of the groups of chips, tested on the others.

    The maps of all stages (or of the middle and the last layer), at the finest grid, go through one linear layer, whose
    logits are interpolated to pixels. Raw pixels are bands, their means and deviations over 5 × 5 pixels.

    Args:
        runs: run folders; several take turns.
        images: what the runs' reader takes.
        masks: rasters of class numbers, by the names of the scenes.
        groups: what the reader calls groups that are kept on one side.
        seeds: of the split, the probe and the untrained encoder.

    Raises:
        UserError: masks and scenes do not belong together, or there are not two groups.
    """
    saved = [describe(run) for run in runs]
    one, place = saved[0], device or torch.device("cpu")
    reader = one.make_reader(images)
    if not isinstance(reader, EOReader) or seeds < 1:
        raise UserError("segmentation takes runs of the reader 'eo', and at least one seed")
    data, kept = _load(reader, masks, one)
    names = reader.labels(groups).astype(str)[kept]
    count = int(data.classes[data.classes != IGNORED].max()) + 1
    sources: list[tuple[str, Callable[[int], Maps]]] = [
        (f"trained ({one.method})", lambda seed: _maps(load(runs[seed % len(runs)]).to(place))),
        ("untrained", lambda seed: _maps(one.make_encoder(FRESH + seed).to(place))),
        ("raw pixels", lambda seed: lambda batch: _raw(batch, reader)),
    ]
    scores = []
    for what, make in sources:
        iou = []
        for seed in range(seeds):
            train, test = _split(names, seed)
            iou.append(tuple(_probe(make(seed), data, train, test, count, seed, place)))
        scores.append(Score(what, tuple(map(str, range(count))), tuple(iou)))
    return scores


def _maps(encoder: nn.Module) -> Maps:
    if not isinstance(encoder, ChipEncoder):
        raise UserError(f"{type(encoder).__name__} has no maps; segmentation takes encoders of chips")
    return encoder.eval().maps


def _load(reader: EOReader, masks: str, saved: Saved) -> tuple[_Data, list[int]]:
    view: View = saved.make_view()
    samples, kept = list[Sample](), list[int]()
    for index in range(len(reader)):
        classes, sample = reader.classes(masks, index), reader.or_none(index)
        if classes is None or sample is None:
            continue
        draws = Draws(sample_keys(0, 0, torch.tensor([index])))
        joined = {**sample, "image": torch.cat([sample["image"], classes[None].to(sample["image"])])}
        samples.append(view.sample(joined, "whole", draws))  # the mask is cut as the bands are
        kept.append(index)
    batch = dict(collate(samples, saved.registry))
    classes = batch["image"][:, -1].real.long()
    batch["image"] = batch["image"][:, :-1]
    return _Data(batch, torch.where(batch["valid"], classes, IGNORED)), kept


def _split(names: NDArray[np.str_], seed: int) -> tuple[Tensor, Tensor]:
    from sklearn.model_selection import GroupShuffleSplit

    if len(np.unique(names)) < 2:
        raise UserError(f"all chips are of one group ({names[0]}): give --groups that has two, to test on another")
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(names, groups=names))
    return torch.from_numpy(train), torch.from_numpy(test)


def _raw(batch: Batch, reader: EOReader) -> list[Tensor]:
    image = statistics.standardised(batch, reader.facts)
    mean = F.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    square = F.avg_pool2d(image.square(), 5, 1, 2, count_include_pad=False)
    return [torch.cat([image, mean, (square - mean.square()).clamp(min=0).sqrt()], 1)]


@torch.no_grad()
def _features(maps: Maps, data: _Data, numbers: Tensor, device: torch.device) -> Tensor:
    """[n, D, h, w] all maps at the grid of the finest, float32."""
    out = []
    for part in numbers.split(BATCH):
        found = maps(to_device(data.rows(part), device))
        size = found[0].shape[2:]
        whole = [found[0], *(F.interpolate(one, size, mode="bilinear", align_corners=False) for one in found[1:])]
        out.append(torch.cat(whole, 1).float().cpu())
    return torch.cat(out)


def _probe(
    maps: Maps, data: _Data, train: Tensor, test: Tensor, count: int, seed: int, device: torch.device
) -> list[float]:
    """Intersection over union of each class."""
    x, other = (_features(maps, data, numbers, device) for numbers in (train, test))
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp(min=1e-6)
    x, other = (x - mean) / std, (other - mean) / std
    torch.manual_seed(seed)
    linear = head([x.shape[1], count], norm=False).to(device)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=RATE, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    side = data.classes.shape[1:]

    def logits(some: Tensor) -> Tensor:
        made = linear(some.to(device).movedim(1, 3)).movedim(3, 1)
        return F.interpolate(made, side, mode="bilinear", align_corners=False)

    chance = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(train), (min(BATCH, len(train)),), generator=chance)
        loss = F.cross_entropy(logits(x[rows]), data.classes[train[rows]].to(device), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        said = torch.cat([logits(part).argmax(1).cpu() for part in other.split(BATCH)])
    return intersection_over_union(said, data.classes[test], count)


def intersection_over_union(said: Tensor, truth: Tensor, count: int) -> list[float]:
    """Of each class, over all pixels that have one; NaN for a class that is neither there nor said."""
    known = truth != IGNORED
    table = torch.bincount(truth[known] * count + said[known], minlength=count**2).view(count, count).double()
    union = table.sum(0) + table.sum(1) - table.diag()
    return [float(value) for value in torch.where(union > 0, table.diag() / union, torch.nan)]
