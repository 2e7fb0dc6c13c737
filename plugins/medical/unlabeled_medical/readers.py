"""Reads volumes through a prepared cache. A sample is a memory map: views cut crops out of it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Facts, Reader, Sample
from unlabeled.errors import BrokenItem, UserError, nearest
from unlabeled_medical import formats, sources
from unlabeled_medical.cache import Entry, Settings, count_missing, default_folder, prepare
from unlabeled_medical.statistics import Intensity, decide, levels
from unlabeled_medical.turns import AXES

VERSION = 1
MODES = ("auto", "ct", "zscore", "percentile", "binary", "none")
ISOTROPIC = 1.25  # ratio of spacings up to which a plane may be turned
RAW = 8  # voxels a side of the grid that raw features are
NAMED = 5  # broken volumes that a notice names
EDGE = 1e-3  # voxels; a place between two is of the later one, however it was rounded


class VolumeReader(Reader):
    """Volumes of NIfTI, NRRD and MHA files, DICOM series and npz stacks, one a sample.

    A sample is {"image": [C, D, H, W] uint8, int16 or float32, as stored, memory-mapped; "levels": [C, 5] float32,
    how its values become an encoder's (see `statistics.levels`); "spacing": [3] float32, mm; "foreground": [64, 3]
    int64, voxels that crops are aimed at}, and with `excluded` {"excluded": [D, H, W] uint8}. Axes are depth, height,
    width: of RAS volumes upward, forward, right.

    Args:
        source: a volume, a folder or pattern of them, a .csv manifest with a column "path", or a stack
            (FILE.npz or FILE.npz:SPLIT, as MedMNIST's, or medmnist:NAME).
        facts: a trained encoder's; orientation, spacing and intensity are theirs.
        spacing: mm that volumes are resampled to, one number or depth,height,width; none: as stored.
        orientation: axis codes, as RAS, that axes are turned to; "": as stored.
        intensity: ct (a window of Hounsfield units), zscore (over the foreground), percentile, binary, none;
            auto: found in the data, and said.
        window: lowest and highest Hounsfield unit of ct.
        channels: what a fourth dimension is: together (channels of one sample) or split (a sample a time point).
        split: of a stack: train, val or test.
        excluded: where segmentations of the same names are, of what is neither shown nor predicted (anonymised faces,
            say): voxels that are not 0. A volume without one has none.
        cache: folder of the prepared volumes; none: $UNLABELED_CACHE, else ~/.cache/unlabeled.

    Raises:
        UserError: the source cannot be read, or not one volume of it.
    """

    def __init__(
        self,
        source: str,
        *,
        facts: Facts | None = None,
        spacing: list[float] | float | None = None,
        orientation: str = "RAS",
        intensity: Intensity = "auto",
        window: tuple[float, float] = (-1000.0, 1000.0),
        channels: Literal["together", "split"] = "together",
        split: str = "train",
        excluded: str | None = None,
        cache: str | None = None,
    ):
        if intensity not in MODES:
            raise UserError(f"intensity cannot be {intensity!r}; {nearest(intensity, MODES)}")
        if channels not in ("together", "split"):
            raise UserError(f"channels cannot be {channels!r}; there are: together, split")
        if window[0] >= window[1]:
            raise UserError(f"window goes from the lower to the higher Hounsfield unit, not from {window}")
        self._source, self.notices = source, list[str]()
        if facts is None:
            settings = Settings(_spacing(spacing), _orientation(orientation))
        else:
            settings = Settings(tuple(facts["resampled"]) if facts["resampled"] else None, facts["orientation"])
        self._settings, self._cache, self._split = settings, Path(cache) if cache else default_folder(), split
        self._items = sources.find(source, split)
        if channels == "split":
            self._items = sources.split_time(self._items, [formats.points_in_time(item) for item in self._items])
        self._entries = self._prepared(settings, self._cache)
        self._good = [entry.about for entry in self._entries if not entry.broken]
        if not self._good:
            first = f"{self._items[0].name}: {self._entries[0].broken}"
            raise UserError(f"not one of {len(self._items)} volumes of {source} can be read; {first}")
        self._segmented: dict[str, list[NDArray[Any] | None]] = {}  # by where they are
        self._known: dict[int, Sample] = {}  # all of a sample but its voxels
        self.facts = facts or self._fit(settings, intensity, window)
        self._excluded = self.segmentations(excluded) if excluded else None
        self._notice()

    def _prepared(self, settings: Settings, cache: Path) -> list[Entry]:
        inside = Path(self._source).resolve()
        if inside.is_dir() and cache.resolve().is_relative_to(inside):
            raise UserError(f"the cache {cache} lies in the data; choose a --cache outside {self._source}")
        missing = count_missing(self._items, cache, settings)
        if not missing or not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
            return prepare(self._items, cache, settings, lambda made: None)
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("preparing volumes", total=missing)
            return prepare(self._items, cache, settings, lambda made: progress.advance(task, made))

    def _fit(self, settings: Settings, intensity: str, window: Sequence[float]) -> Facts:
        chosen = decide(self._good) if intensity == "auto" else intensity
        if intensity == "auto":
            self.notices.append(f"intensity is {chosen} (found in the data; see --intensity)")
        counts = Counter(one["shape"][0] for one in self._good)
        return {
            "version": VERSION,
            "channels": counts.most_common(1)[0][0],
            "intensity": chosen,
            "window": [float(x) for x in window],
            "orientation": settings.orientation,
            "resampled": list(settings.spacing) if settings.spacing else None,
            "shape": [float(x) for x in np.median([one["shape"][1:] for one in self._good], 0)],
            "spacing": [float(x) for x in np.median([one["spacing"] for one in self._good], 0)],
            "plane": _plane([one["spacing"] for one in self._good]),
        }

    def _notice(self) -> None:
        broken = [(item, entry) for item, entry in zip(self._items, self._entries, strict=True) if entry.broken]
        for item, entry in broken[:NAMED]:
            self.notices.append(f"{item.name} is left out: {entry.broken}")
        if len(broken) > NAMED:
            self.notices.append(f"{len(broken) - NAMED} more volumes are left out; see inspect")
        holes = sum(one["holes"] > 0 for one in self._good)
        if holes:
            self.notices.append(f"{holes} volumes have voxels that are no number; they count as the least value")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._known:
            about = self._about(index)
            self._known[index] = {
                "levels": torch.from_numpy(levels(self.facts["intensity"], self.facts["window"], about)),
                "spacing": torch.tensor(about["spacing"], dtype=torch.float32),
                "foreground": torch.tensor(about["foreground"]),
            }
        sample = {"image": torch.from_numpy(self._entries[index].open()), **self._known[index]}
        if self._excluded is not None:
            mask = self._excluded[index]
            shape = self._about(index)["shape"][1:]
            nothing = torch.zeros(1, dtype=torch.uint8).expand(*shape)
            sample["excluded"] = nothing if mask is None else torch.from_numpy(mask)
        return sample

    def _about(self, index: int) -> Mapping[str, Any]:
        entry = self._entries[index]
        if entry.broken:
            raise BrokenItem(entry.broken)
        found, wanted = entry.about["shape"][0], self.facts["channels"]
        if found != wanted:
            raise BrokenItem(f"it has {found} channels, and the encoder's data {wanted}; see --channels")
        return entry.about

    def name(self, index: int) -> str:
        """The path relative to the source; FILE:SPLIT:ROW in a stack, #NUMBER of a series or time point."""
        return self._items[index].name

    def labels(self, spec: str) -> NDArray[Any]:
        """Labels: "folder" (the parent's name), a manifest's column; of a stack "label".

        Raises:
            UserError: there is no such label.
        """
        if self._items[0].form == "stack":
            return sources.stack_labels(self._items, spec)
        return _numbers(sources.labels(self._items, self._source, spec))

    def segmentations(self, source: str) -> list[NDArray[Any] | None]:
        """Classes of each volume's voxels [D, H, W], memory-mapped, by files of the same names; None without one.

        nnU-Net's names fit as well: labelsTr/case.nii.gz is of imagesTr/case_0000.nii.gz, case_0001.nii.gz and so on.

        Raises:
            UserError: a file cannot be read, differs in shape from its volume, or none belongs to a volume.
        """
        found = {sources.stem(item.name): item for item in sources.find(source, self._split)}
        names = [item.name for item in self._items]
        items = [found.get(sources.stem(name)) or found.get(sources.case(name)) for name in names]
        wanted = list({item.name: item for item in items if item is not None}.values())
        if not wanted:
            raise UserError(f"no file of {source} is called as a volume of {self._source}; give them the same names")
        made = prepare(wanted, self._cache, replace(self._settings, classes=True), lambda count: None)
        entries = dict(zip((item.name for item in wanted), made, strict=True))
        return [
            None if item is None else self._classes(index, entries[item.name], item.name)
            for index, item in enumerate(items)
        ]

    def labels_at(self, spec: str, index: int, places: NDArray[Any]) -> NDArray[np.str_] | None:
        """Classes of voxels, of segmentations in `spec` that have the names of the volumes."""
        if spec not in self._segmented:
            self._segmented[spec] = self.segmentations(spec)
        classes = self._segmented[spec][index]
        if classes is None:
            return None
        sides = np.array(classes.shape)
        if not len(places):
            return np.empty(0, str)
        depth, row, column = np.clip(np.floor(places * sides + EDGE).astype(np.int64), 0, sides - 1).T
        found: NDArray[np.str_] = classes[depth, row, column].astype(np.int64).astype(str)
        return found

    def _classes(self, index: int, entry: Entry, name: str) -> NDArray[Any] | None:
        if self._entries[index].broken:  # the volume is left out, and its segmentation with it
            return None
        if entry.broken:
            raise UserError(f"segmentation {name} cannot be used: {entry.broken}")
        shape = entry.about["shape"]
        if shape != [1, *self._entries[index].about["shape"][1:]]:
            raise UserError(f"segmentation {name} is of shape {shape[1:]}, and its volume is not; give one on its grid")
        classes: NDArray[Any] = entry.open()[0]
        return classes

    def raw(self) -> NDArray[np.float32]:
        """The volume as a grid of 8 × 8 × 8 means, of what the encoder is given: the occupancy of masks.

        What cannot be read is zeros.
        """
        made = np.zeros((len(self), self.facts["channels"] * RAW**3), np.float32)
        for index in range(len(self)):
            try:
                sample = self[index]
            except BrokenItem:
                continue
            low, high, shift, scale, _ = sample["levels"].T[..., None, None, None]
            means = [  # a slab at a time, so that a large volume is never in memory as float32
                ((slab.float().clamp(low, high) - shift) / scale).mean(1)
                for slab in sample["image"].tensor_split(min(RAW, sample["image"].shape[1]), 1)
            ]
            grid = F.interpolate(F.adaptive_avg_pool2d(torch.stack(means, 1), RAW)[None], (RAW, RAW, RAW))
            made[index] = grid.flatten().numpy()
        return made

    def pictures(self, batch: Batch) -> list[Tensor]:
        """The middle slice across depth of the first channel, upright and at its true proportions, least to most."""
        made = []
        for volume, spacing in zip(batch["image"][:, 0], batch["spacing"], strict=True):
            image = volume[len(volume) // 2].flip(0)  # rows grow downward, and axes of RAS do not
            low, high = image.min(), image.max()
            grey = (image - low) / (high - low).clamp(min=1e-6)
            sides = torch.tensor(grey.shape) * (spacing[1:].cpu() / spacing[1:].min().cpu()).clamp(max=4)
            size = sides.round().long().tolist()
            made.append(F.interpolate(grey[None, None], size, mode="nearest")[0, 0])
        return made

    def summary(self) -> list[dict[str, str]]:
        """What `inspect` prints: kinds of volumes, the commonest first, with their intensities."""
        kinds: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for one in self._good:
            stored = one["stored"]
            spacing = " × ".join(f"{x:.3g}" for x in stored["spacing"])
            key = (str(stored["shape"][0]), stored["orientation"], spacing, one["modality"] or "not said")
            kinds.setdefault(key, []).append(one)
        return [self._row(key, found) for key, found in sorted(kinds.items(), key=lambda pair: -len(pair[1]))]

    def _row(self, key: tuple[str, ...], found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        shapes = np.array([one["stored"]["shape"][1:] for one in found])
        sides = [str(a) if a == b else f"{a}-{b}" for a, b in zip(shapes.min(0), shapes.max(0), strict=True)]
        least, most = min(min(one["least"]) for one in found), max(max(one["most"]) for one in found)
        means = [one["mean"][0] for one in found]
        names = ("channels", "orientation", "spacing (mm)", "modality")
        return {
            "volumes": str(len(found)),
            "shape": " × ".join(sides),
            **dict(zip(names, key, strict=True)),
            "values": f"{least:.5g} … {most:.5g}",
            "foreground mean": f"{min(means):.4g} … {max(means):.4g}",
            "used as": self.facts["intensity"],
        }


def _spacing(given: Sequence[float] | float | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    many = (float(given),) if isinstance(given, int | float) else tuple(float(x) for x in given)
    many = many * 3 if len(many) == 1 else many
    if len(many) != 3 or min(many) <= 0:
        raise UserError(f"spacing is one number of millimetres or three (depth,height,width), above 0, not {given}")
    return many


def _orientation(codes: str) -> str:
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    codes = codes.upper()
    if codes and sorted(axes.get(code, -1) for code in codes) != [0, 1, 2]:
        raise UserError(f"orientation is three axis codes, as RAS or LPS, not {codes!r}")
    return codes


def _plane(spacings: Sequence[Sequence[float]]) -> str:
    """Where volumes may be turned: "all" where every one is isotropic, the axis across the one even plane, or ""."""
    found = set()
    for spacing in spacings:
        pairs = {axis: [x for at, x in enumerate(spacing) if at != axis] for axis in range(3)}
        even = [axis for axis, pair in pairs.items() if max(pair) <= ISOTROPIC * min(pair)]
        found.add("all" if len(even) == 3 else AXES[even[0]] if len(even) == 1 else "")
    found = found - {"all"} if len(found) == 2 else found  # what is isotropic may be turned in any plane
    return found.pop() if len(found) == 1 else ""


def _numbers(words: NDArray[np.str_]) -> NDArray[Any]:
    """Labels as numbers where all are, NaN where one is missing."""
    try:
        values = np.array([float(word) if word else np.nan for word in words])
    except ValueError:
        return words
    whole = bool((values == np.round(values)).all())
    return values.astype(np.int64) if whole else values
