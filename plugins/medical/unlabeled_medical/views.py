"""Random crops of volumes. The sample stage cuts, in a loader worker; the batch stage changes, on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch, Facts, Kind, Sample, View
from unlabeled.errors import UserError
from unlabeled.randomness import Draws
from unlabeled_medical import augment, turns

STEP, LEAST, MOST = 8, 16, 64  # voxels: default crops are multiples of the first, between the others

CALIBRATED: tuple[tuple[str, float, augment.Change], ...] = (
    ("noise", 0.1, augment.noise),
    ("blur", 0.2, augment.blur),
    ("window", 0.3, augment.window),
    ("low_resolution", 0.1, augment.low_resolution),
)
FREE: tuple[tuple[str, float, augment.Change], ...] = (
    ("noise", 0.1, augment.noise),
    ("blur", 0.2, augment.blur),
    ("brightness", 0.15, augment.brightness),
    ("contrast", 0.15, augment.contrast),
    ("low_resolution", 0.1, augment.low_resolution),
    ("gamma", 0.3, augment.gamma),
)
"""Changes of intensity with nnU-Net's probabilities: of Hounsfield units, and of what has no units."""


def default_crop(facts: Facts) -> int:
    """A crop about as large as most volumes, up to 64 voxels a side."""
    side = STEP * round(sum(facts["shape"]) / 3 / STEP)
    return int(min(max(side, LEAST), MOST))


class Crops(View):
    """Cubic crops aimed at the foreground, turned, mirrored and changed as the modality allows (nnU-Net's ranges).

    A batch is {"image": [B, C, S, S, S] float32, normalised; "where": [B, 3, 4], which takes places of the crop
    to those of the volume, both in [0, 1]; "spacing": [B, 3]; "levels" and "foreground" as they were}, and
    "excluded" [B, S, S, S] bool where the reader says what is. Global and
    local crops are scaled; plain ones are only mirrored; whole ones are undisturbed. Where a crop reaches out of
    its volume it holds the volume's least value, and `where` says so. Intensities of calibrated Hounsfield units
    get a jittered window in place of brightness, contrast and gamma, masks are not changed but in space.

    Args:
        facts: of the reader.
        crop: voxels a side; none: as large as most volumes, up to 64.
        local: voxels a side of local crops; none: half of `crop`.
        whole: centre (a crop from the middle), or resize (the volume scaled into the crop).
        foreground: share of random crops that are aimed at a voxel of the foreground.
        scale: range of the zoom of global and local crops.
        zoomed: share of them that are; the rest shows voxels as they are.
        flips: axes that are mirrored half of the time, of d, h and w; "dh" where left and right matter.
        turn: degrees up to which a fifth of the crops are turned, in planes of even spacing.
        strength: multiplies the probabilities of changes of intensity; 0: none.
        slices: share of global and local crops that show one slice across depth, repeated all along it, so that an
            encoder learns slices and volumes alike (joint 2D-3D training, as arXiv 2212.01893).

    Raises:
        UserError: an option that makes no sense.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        crop: int | None = None,
        local: int | None = None,
        whole: Literal["centre", "resize"] = "centre",
        foreground: float = 0.8,
        scale: tuple[float, float] = (0.7, 1.4),
        zoomed: float = 1.0,
        flips: str = "dhw",
        turn: float = 30.0,
        strength: float = 1.0,
        slices: float = 0.0,
    ):
        crop = default_crop(facts) if crop is None else crop
        local = max(crop // 2, 1) if local is None else local
        if min(crop, local) < 2:
            raise UserError(f"a crop has at least 2 voxels a side, not {min(crop, local)}")
        if whole not in ("centre", "resize"):
            raise UserError(f"whole cannot be {whole!r}; there are: centre, resize")
        self._flips = turns.axes_of("flips", flips)
        if not 0 < scale[0] <= scale[1]:
            raise UserError(f"scale goes from a smaller to a larger factor above 0, not from {scale[0]} to {scale[1]}")
        if not all(0 <= share <= 1 for share in (foreground, zoomed, slices)) or strength < 0:
            raise UserError("foreground, zoomed and slices are shares from 0 to 1, and strength a factor from 0")
        self._local, self._resize, self._foreground = local, whole == "resize", foreground
        self._scale, self._zoomed, self._angle = (scale[0], scale[1]), zoomed, math.radians(turn)
        self._plane, self._intensity, self._strength = facts["plane"], facts["intensity"], strength
        self._slices = slices
        self._turns = turns.axis_turns(self._plane) if self._plane else torch.eye(3)[None]
        self.side = crop
        self.transforms = len(self._turns) if len(self._turns) > 1 else 0

    @property
    def _mode(self) -> str:
        """How grids are resampled: masks stay masks."""
        return "nearest" if self._intensity == "binary" else "bilinear"

    # ---- the sample stage

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        shape = sample["image"].shape[1:]
        side = self._local if kind == "local" else self.side
        mirrored: list[int] = []
        if kind == "whole":
            extent = max(shape) if self._resize else side
            start = [(size - extent) // 2 for size in shape]
        else:
            chance = draws.numbers(11)  # all at once: small draws cost as much as a crop
            zoom = 1.0
            if kind != "plain" and chance[0] < self._zoomed:
                zoom = self._scale[0] + (self._scale[1] - self._scale[0]) * chance[0] / self._zoomed
            extent = max(2, round(side / zoom))
            start = self._start(sample["foreground"], shape, extent, chance[1:6])
            mirrored = [at for at in self._flips if chance[6 + at] < 0.5]
        cut = Cut(start, extent, stride=max(1, extent // (2 * side)))
        image, where = cut.of(sample["image"], sample["levels"]), cut.where(shape)
        masks = [cut.inside(sample["excluded"])[None]] if "excluded" in sample else []
        if image.shape[-1] != side:
            mode = "nearest" if self._mode == "nearest" else "trilinear"
            image = F.interpolate(image[None], (side,) * 3, mode=mode)[0]
            masks = [F.interpolate(mask[None].float(), (side,) * 3)[0] > 0 for mask in masks]
        if kind in ("global", "local") and chance[9] < self._slices:
            number = int(chance[10] * side)
            image, masks = one_slice(image, number), [one_slice(mask, number) for mask in masks]
            where = turns.flattened(where, (number + 0.5) / side)
        if mirrored:
            axes = [at + 1 for at in mirrored]
            image, masks = image.flip(axes), [mask.flip(axes) for mask in masks]
            where = turns.moved(where, torch.diag(torch.tensor([-1.0 if at in mirrored else 1.0 for at in range(3)])))
        made = {**sample, "image": image, "where": where, "spacing": sample["spacing"] * cut.extent / side}
        return {**made, "excluded": masks[0][0]} if masks else made

    def _start(self, points: Tensor, shape: Sequence[int], extent: int, chance: Sequence[float]) -> list[int]:
        """The first voxel of a random crop; it hangs out of the volume only where that is smaller."""
        aim = points[int(chance[4] * len(points))].tolist() if chance[3] < self._foreground else None
        start = []
        for axis, size in enumerate(shape):
            room = size - extent
            if room < 0:
                start.append(round(room * chance[axis]))
            elif aim is None:
                start.append(min(int(chance[axis] * (room + 1)), room))
            else:
                start.append(min(max(round(aim[axis] - (0.25 + 0.5 * chance[axis]) * extent), 0), room))
        return start

    # ---- the batch stage

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind in ("plain", "whole"):
            return batch
        if self._plane and self._angle:
            batch = self._turned(batch, draws.fork("turn"))
        return {**batch, "image": self._changed(batch["image"], draws)}

    def _turned(self, batch: Batch, draws: Draws) -> Batch:
        """A fifth of the rows turned in a plane of even spacing."""
        rows = draws.chance(0.2, 1)[:, 0].nonzero()[:, 0]
        if not len(rows):
            return batch
        draws = draws.rows(rows)
        angle = draws.uniform(1, low=-self._angle, high=self._angle)[:, 0]
        axis = draws.integers(0, 3, 1)[:, 0]
        if self._plane != "all":
            axis = torch.full_like(axis, turns.AXES.index(self._plane))
        matrix = turns.about_axis(axis, angle)
        floor = batch["levels"][rows, :, 4]
        image = augment.rotate(batch["image"][rows], matrix, floor, self._mode)
        where = turns.moved(batch["where"][rows], matrix)
        made = {
            **batch,
            "image": batch["image"].index_copy(0, rows, image),
            "where": batch["where"].index_copy(0, rows, where),
        }
        if "excluded" in batch:
            mask = batch["excluded"][rows][:, None].float()
            turned = augment.rotate(mask, matrix, torch.zeros_like(mask[:, :, 0, 0, 0]), "nearest")[:, 0] > 0
            made["excluded"] = batch["excluded"].index_copy(0, rows, turned)
        return made

    def _changed(self, image: Tensor, draws: Draws) -> Tensor:
        """Intensities, in nnU-Net's order and probabilities."""
        if self._intensity == "binary" or not self._strength:
            return image
        changes = CALIBRATED if self._intensity == "ct" else FREE
        chance = draws.fork("whether").uniform(len(changes))
        for at, (name, probability, change) in enumerate(changes):
            rows = (chance[:, at] < probability * self._strength).nonzero()[:, 0]
            if len(rows):
                image = image.index_copy(0, rows, change(image[rows], draws.fork(name).rows(rows)))
        return image

    # ---- known transforms

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        """Turns about the axes: the 24 of a cube where every volume is isotropic, else the 4 of the even plane."""
        image, where, spacing = batch["image"].clone(), batch["where"].clone(), batch["spacing"].clone()
        masks = [batch["excluded"].clone()] if "excluded" in batch else []
        for number in which.unique().tolist():
            rows, matrix = which == number, self._turns[number].to(image.device)
            image[rows] = turns.turned(batch["image"][rows], matrix)
            where[rows] = turns.moved(batch["where"][rows], matrix)
            spacing[rows] = batch["spacing"][rows] @ matrix.abs()
            for mask in masks:
                mask[rows] = turns.turned(batch["excluded"][rows][:, None], matrix)[:, 0]
        made = {**batch, "image": image, "where": where, "spacing": spacing}
        return {**made, "excluded": masks[0]} if masks else made


def one_slice(image: Tensor, number: int) -> Tensor:
    """[..., D, H, W] in which every slice across depth is the one of that number."""
    return image.narrow(-3, number, 1).expand_as(image)


class Cut:
    """A cube of voxels, of which every `stride`th is read: no more of a memory map is touched."""

    def __init__(self, start: Sequence[int], extent: int, stride: int):
        self.start, self.stride = start, stride  # the start may be below 0
        self.size = -(-extent // stride)

    @property
    def extent(self) -> int:
        return self.size * self.stride

    def of(self, image: Tensor, levels: Tensor) -> Tensor:
        """The cube of a volume [C, D, H, W], normalised, filled with the floor where there is no volume."""
        out = levels[:, 4, None, None, None].expand(-1, *[self.size] * 3).clone()
        source, target = self._parts(image.shape[1:])
        low, high, shift, scale = levels[:, :4].T[..., None, None, None]
        out[:, *target] = (image[:, *source].float().clamp(low, high) - shift) / scale
        return out

    def inside(self, mask: Tensor) -> Tensor:
        """The cube of a mask [D, H, W], as bool; False where there is no volume."""
        out = torch.zeros([self.size] * 3, dtype=torch.bool)
        source, target = self._parts(mask.shape)
        out[tuple(target)] = mask[tuple(source)] != 0
        return out

    def _parts(self, shape: Sequence[int]) -> tuple[list[slice], list[slice]]:
        """Which voxels of a volume are taken, and where in the cube they go."""
        source, target = [], []
        for start, side in zip(self.start, shape, strict=True):
            first = max(0, -(start // self.stride))  # of the cube's voxels, the first that lies in the volume
            last = min(self.size, -(-(side - start) // self.stride))
            source.append(slice(start + first * self.stride, start + (last - 1) * self.stride + 1, self.stride))
            target.append(slice(first, last))
        return source, target

    def where(self, shape: Sequence[int]) -> Tensor:
        """[3, 4]: takes a place of the cube to its place in the volume, both in [0, 1]."""
        sides = torch.tensor(shape, dtype=torch.float32)
        start = torch.tensor(self.start, dtype=torch.float32) / sides
        return torch.cat([torch.diag(self.extent / sides), start[:, None]], 1)
