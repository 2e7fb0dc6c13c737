"""Reads chips of scenes: windows of rasters on one grid, on a declared scale, with what is valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Facts, Reader, Sample
from unlabeled.errors import BrokenItem, UserError, choose
from unlabeled_eo import chips, labels, statistics
from unlabeled_eo.classes import Masks, nearest_class
from unlabeled_eo.rasters import Grid
from unlabeled_eo.scales import SCALES, Scale, contradiction, convert, from_complex, range_of
from unlabeled_eo.scenes import Opened, Place, is_radar, tried
from unlabeled_eo.sources import find

VERSION = 1
Part = Literal["amplitude", "phase", "iq", "keep"]
PARTS: tuple[Part, ...] = ("amplitude", "phase", "iq", "keep")
RAW = 32  # a chip's side in raw features
LARGEST_RAW = 4096  # numbers of raw features, at most
PIXELS = 1 << 22  # pixels of all bands that encoders see at once outside training
NAMED = 5  # broken scenes that a notice names


class EOReader(Reader):
    """Chips as {"image": [C, H, W] float32, or complex64; "valid": [H, W] bool}, on the scale that is asked for.

    Bands of one scene may lie in several files and on several grids: they are read on the finest. Pixels without a
    value (nodata, masks, NaN, zeros that have no decibels) are not valid, and 0. Samples differ in size: views cut.

    Args:
        source: a file, a folder, a glob, several with commas, .SAFE folders, a manifest, or torchgeo:CLASS/SPLIT.
        facts: a trained encoder's; bands, scale and statistics are its.
        bands: names with commas between (VV,VH or B04,B03,B02), or numbers from 1; none: those that most scenes have.
        scale: what an encoder is given: linear (power), amplitude, db; none: as stored.
        stored: what the files hold; auto: what their metadata say, which is refused where they say nothing and a
            scale is asked for.
        part: of complex data: amplitude (then the scale applies), phase, iq (two bands for one), or keep (complex, for
            views that need it; encoders see the scale).
        pairs: bands come in pairs, real and imaginary, and make one complex band.
        partial: take scenes that lack some of the bands, whose pixels are then not valid.
        sampler: auto, grid, random, tiles (random, and fast on large scenes) or whole; see unlabeled_eo.chips.places.
        chip: pixels a side.
        stride: pixels from chip to chip of a grid; none: `chip`.
        samples: chips of the random sampler; none: as many as a grid has.
        sampler_seed: of the random sampler.
        centre: pixels a side of the middle of each scene, of which alone samples are made, so that their size says
            nothing; none: all of it.
        pixel: side of a pixel in units of the CRS (metres, mostly) that scenes are resampled to; none: as stored.
        nodata: a value that means there is none, beside the files' own.
        least: share of a chip that must be valid.
        calibrate: Sentinel-1 products to σ⁰ by their own tables.
        pattern: what file names say: '{type}_x*' gives the label type.

    Raises:
        UserError: there are no scenes, not one can be read, scales are mixed or unknown, or options contradict.
    """

    def __init__(
        self,
        source: str,
        *,
        facts: Facts | None = None,
        bands: str | None = None,
        scale: Scale | None = None,
        stored: Literal["auto", "linear", "amplitude", "db", "none"] = "auto",
        part: Part = "amplitude",
        pairs: bool = False,
        partial: bool = False,
        sampler: Literal["auto", "grid", "random", "tiles", "whole"] = "auto",
        chip: int = 256,
        stride: int | None = None,
        samples: int | None = None,
        sampler_seed: int = 0,
        centre: int | None = None,
        pixel: float | None = None,
        nodata: float | None = None,
        least: float = 0.1,
        calibrate: bool = True,
        pattern: str | None = None,
    ):
        choose("part", part, dict.fromkeys(PARTS))
        choose("stored scale", stored, dict.fromkeys(("auto", *SCALES)))
        if not 0 < least <= 1:
            raise UserError(f"least is a share of a chip above 0, up to 1, not {least:g}")
        if (centre is not None and centre < 1) or (pixel is not None and pixel <= 0):
            raise UserError(f"centre is a number of pixels and pixel a length, both above 0, not {centre} and {pixel}")
        self._source, self._pattern = str(source), pattern
        self._pairs, self._partial, self._nodata, self._least = pairs, partial, nodata, least
        self._calibrate, self._pixel = calibrate, pixel
        self.notices: list[str] = []
        self._scenes = find(self._source)
        # every scene, or why it cannot be read
        self.scenes: Sequence[Opened | str] = [tried(scene) for scene in self._scenes]
        self._readable()
        self._part: Part = facts["part"] if facts else part
        self._bands = tuple(facts["bands"]) if facts else self._chosen(bands)
        self._places: list[list[Place | None] | str] = [self._located(one) for one in self.scenes]
        self._stored = [self._said(one, stored) for one in self.scenes]
        self.scale: Scale = facts["scale"] if facts else self._wanted(scale)
        self._check_scales()
        self._cut(sampler, chip, stride, samples, centre, sampler_seed)
        self.facts = facts or self._fit(chip)
        side = float(np.sqrt(np.median(self.rows[:, 3] * self.rows[:, 4])))
        self.embed_batch = int(min(512, max(1, PIXELS / (side**2 * self.channels))))
        self._raw: NDArray[np.float32] | None = None
        self._masks: dict[str, Masks] = {}

    # ---- what there is

    def _readable(self) -> None:
        broken = [(at, one) for at, one in enumerate(self.scenes) if isinstance(one, str)]
        if len(broken) == len(self.scenes):
            raise UserError(
                f"not one of {len(broken)} scenes of {self._source} can be read; the first, "
                f"{self._scenes[0].name}: {broken[0][1]}"
            )
        self.notices += [f"{self._scenes[at].name} is left out: {reason}" for at, reason in broken[:NAMED]]
        if len(broken) > NAMED:
            self.notices.append(f"{len(broken) - NAMED} more scenes cannot be read; see inspect")

    def _good(self) -> list[Opened]:
        return [one for one in self.scenes if isinstance(one, Opened)]

    def _chosen(self, bands: str | None) -> tuple[str, ...]:
        """Names of the bands, as files have them."""
        if bands is None:
            found = Counter(tuple(one.bands) for one in self._good())
            most = found.most_common(1)[0][0]
            self.notices += (
                [f"bands are {', '.join(most)} (those of most scenes; see --bands)"] if len(found) > 1 else []
            )
        else:
            most = tuple(name.strip().upper() for name in bands.split(",") if name.strip())
            known = sorted({name for one in self._good() for name in one.bands})
            if not any(any(one.pick(most)) for one in self._good()):
                raise UserError(
                    f"no scene of {self._source} has a band {', '.join(most)}; they have {', '.join(known)}"
                )
            if any(not one.named and one.pick(most) == [*one.bands.values()] for one in self._good()):
                self.notices.append(f"bands have no names in the files, and are {', '.join(most)} by position")
        if self._pairs and len(most) % 2:
            raise UserError(
                f"pairs are a real and an imaginary band each, and there are {len(most)} bands; see --bands"
            )
        return most

    def _located(self, one: Opened | str) -> list[Place | None] | str:
        """Where a scene has the bands; or why it cannot be used."""
        if isinstance(one, str):
            return one
        places = one.pick(self._bands)
        missing = [name for name, place in zip(self._bands, places, strict=True) if place is None]
        if missing and (not self._partial or len(missing) == len(places)):
            return f"it has no band {', '.join(missing)} but {', '.join(one.bands)}; see --bands and --partial"
        if one.complex and self._pairs:
            return "it is complex already; leave out --pairs"
        return places

    def _usable(self, at: int) -> tuple[Opened, list[Place | None]]:
        """A scene and where it has the bands. Raises BrokenItem: why it cannot be used."""
        one, places = self.scenes[at], self._places[at]
        if isinstance(one, str) or isinstance(places, str):
            raise BrokenItem(str(places))
        return one, places

    def _said(self, one: Opened | str, stored: str) -> Scale | None:
        if isinstance(one, str):
            return None
        if self._pairs:
            return "amplitude"
        try:
            said = one.scale()
        except BrokenItem as error:
            raise UserError(f"{one.scene.name}: {error}; name one of them, or put them apart") from None
        if stored != "auto":
            if said is not None and said != stored:
                raise UserError(f"{one.scene.name} says that it holds {said}, and --stored says {stored}; leave it out")
            return stored  # type: ignore[return-value]
        return said

    def _wanted(self, scale: Scale | None) -> Scale:
        said = {one for one in self._stored if one is not None}
        if scale is not None:
            choose("scale", scale, dict.fromkeys(SCALES))
            return scale
        if len(said) > 1:
            names = ", ".join(sorted(said))
            raise UserError(f"the scenes are of different scales ({names}); ask for one, as in --scale db")
        return said.pop() if said else "none"

    def _check_scales(self) -> None:
        """Refuse what would be a guess."""
        if self.scale == "none":
            return
        unknown = [
            self._scenes[at].name
            for at, one in enumerate(self._stored)
            if one is None and isinstance(self.scenes[at], Opened)
        ]
        if unknown:
            raise UserError(
                f"nothing says on which scale {len(unknown)} of {len(self._scenes)} scenes are ({unknown[0]}), so that "
                f"they cannot be taken as {self.scale}: declare it, as in --stored linear"
            )

    def _cut(
        self, sampler: str, chip: int, stride: int | None, samples: int | None, centre: int | None, seed: int
    ) -> None:
        """Samples as rows (scene, row, column, rows, columns); a scene that cannot be used is one, and raises there."""
        usable = [at for at, places in enumerate(self._places) if not isinstance(places, str)]
        if not usable:
            raise UserError(f"not one scene of {self._source} can be used; {self._scenes[0].name}: {self._places[0]}")
        self._grids: dict[int, Grid] = {}
        for at in usable:
            one, where = self._usable(at)
            self._grids[at] = one.grid(where, self._pixel)
        sizes = [(self._grids[at].height, self._grids[at].width) for at in usable]
        inner = [(0, 0, *size) if centre is None else chips.centred(*size, centre) for size in sizes]
        blocks = [self._tiles(at, part) for at, part in zip(usable, inner, strict=True)]
        cut = chips.places([part[2:] for part in inner], sampler, chip, stride, samples, seed, blocks)
        rows = [(at, 0, 0, 0, 0) for at, places in enumerate(self._places) if isinstance(places, str)]
        self.left_out = 0
        for at, part, windows in zip(usable, inner, cut, strict=True):
            windows = [(part[0] + r, part[1] + c, h, w) for r, c, h, w in windows]
            kept = self._not_empty(at, windows, chip)
            self.left_out += len(windows) - len(kept)
            rows += [(at, *window) for window in kept]
        self.rows = np.array(sorted(rows), dtype=np.int64).reshape(-1, 5)
        self._alone = np.bincount(self.rows[:, 0], minlength=len(self._scenes)) == 1
        if self.left_out:
            self.notices.append(f"{self.left_out} chips are left out, as less than {self._least:.0%} of each is valid")
        if not len(self.rows):
            raise UserError(f"no chip of {self._source} has a valid share of {self._least:g}; lower --least")

    def _tiles(self, at: int, part: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
        """Where tiles of the finest file begin in a part of its scene, and their sides."""
        for header in self._usable(at)[0].headers:
            if header.block and Grid.of(header) == self._grids[at]:
                return -part[0], -part[1], *header.block
        return None

    def _not_empty(self, at: int, windows: list[tuple[int, int, int, int]], chip: int) -> list[Any]:
        if len(windows) == 1:
            return windows  # read as it is, and told of if there is nothing in it
        (one, places), grid = self._usable(at), self._grids[at]
        cell = max(1, chip // chips.COARSE)
        mask = one.seen(places, -(-grid.height // cell), -(-grid.width // cell))
        if mask is None:
            return windows
        shares = chips.seen_share(windows, mask, grid.height, grid.width)
        return [window for window, share in zip(windows, shares, strict=True) if share >= self._least]

    # ---- samples

    @property
    def channels(self) -> int:
        """C of samples as an encoder sees them."""
        count = len(self._bands) // 2 if self._pairs else len(self._bands)
        return 2 * count if self._part == "iq" and self._is_complex() else count

    def _is_complex(self) -> bool:
        return self._pairs or any(one.complex for one in self._good())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sample {index}; there are {len(self)}")
        at, *window = self.rows[index].tolist()
        (one, places), stored = self._usable(at), self._stored[at]
        values = one.read(places, self._grids[at], tuple(window), self._calibrate)
        valid = torch.from_numpy(values[-1].real > 0.5)
        image, absent = torch.from_numpy(values[:-1]), torch.tensor([place is None for place in places])
        return self._made(image, valid, absent, stored or "none")

    def _made(self, image: Tensor, valid: Tensor, absent: Tensor, stored: Scale) -> Sample:
        if self._nodata is not None:
            image = torch.where(image == self._nodata, torch.nan, image)
        if self._pairs:
            image, absent = torch.complex(image[0::2], image[1::2]), absent[0::2]
        if image.is_complex():
            image = self._of_complex(image)
        else:
            wrong = contradiction(stored, *range_of(image, valid, absent)) if stored != "none" else None
            if wrong:
                raise BrokenItem(f"it is no {stored}: {wrong}")
            image = image if self.scale == "none" else convert(image, stored, self.scale)
        finite = (from_complex(image, self.scale) if image.is_complex() else image).isfinite()
        rows = ~absent if len(absent) == len(image) else (~absent).repeat_interleave(len(image) // len(absent))
        if not bool(valid.all()) or not bool(finite.all()):
            valid = valid & (finite | ~rows[:, None, None]).all(0)
            share = float(valid.float().mean())
            if share < self._least:
                raise BrokenItem(f"only {share:.1%} of it is valid, less than --least {self._least:g}")
            image = image.masked_fill(~(valid & rows[:, None, None]), 0)
        sample = {"image": image, "valid": valid}
        return {**sample, "bands": rows} if self._partial else sample

    def _of_complex(self, image: Tensor) -> Tensor:
        if self._part == "keep":
            return image
        if self._part == "phase":
            return image.angle()
        if self._part == "iq":
            return torch.stack([image.real, image.imag], 1).flatten(0, 1)
        return from_complex(image, self.scale)

    def name(self, index: int) -> str:
        at, row, column, _, _ = self.rows[index].tolist()
        name = self._scenes[at].name
        return name if self._alone[at] else f"{name} @ {row},{column}"

    def labels(self, spec: str) -> NDArray[Any]:
        """folder, scene (for groups), a manifest's column, a pattern or its field, or SUFFIX.json:KEY beside scenes."""
        found = labels.of(self._scenes, spec, self._pattern, self._source)
        return found[self.rows[:, 0]]

    def labels_at(self, spec: str, index: int, places: NDArray[Any]) -> NDArray[np.str_] | None:
        """Classes of pixels, of rasters in the folder `spec` that have the names and grids of the scenes."""
        classes = self.classes(spec, index, read=bool(len(places)))
        return None if classes is None else nearest_class(classes, places)

    def classes(self, source: str, index: int, read: bool = True) -> Tensor | None:
        """[H, W] classes of a chip's pixels by `Masks`; None without a mask, empty if it is not to be read."""
        if source not in self._masks:
            self._masks[source] = Masks(self.scenes, source)
        at, *window = self.rows[index].tolist()
        return self._masks[source].window(at, tuple(window), self._grids[at], read)

    def raw(self) -> NDArray[np.float32]:
        """[n, C × 32 × 32] what is valid of the chips, standardised and shrunk; zeros where they cannot be read."""
        if self._raw is None:
            side = RAW
            while self.channels * side**2 > LARGEST_RAW and side > 1:
                side //= 2
            out = np.zeros((len(self), self.channels * side**2), np.float32)
            for index in range(len(self)):
                sample = self.or_none(index)
                if sample is not None:
                    image = statistics.standardised(sample, self.facts)
                    out[index] = torch.nn.functional.adaptive_avg_pool2d(image, side).flatten().numpy()
            self._raw = out
        return self._raw

    def pictures(self, batch: Batch) -> list[Tensor]:
        """The first band between its 2nd and 98th percentile."""
        return statistics.pictures(batch, self.facts)

    # ---- what an encoder must know

    def _fit(self, chip: int) -> Facts:
        base = [name.removesuffix("_I").removesuffix("_Q") for name in self._bands]
        names = base[0::2] if self._pairs else list(self._bands)
        if self._part == "iq" and self._is_complex():
            names = [f"{name}.{half}" for name in names for half in "IQ"]
        complex_ = self._is_complex()
        shown: Scale = "amplitude" if complex_ and self._part == "keep" and self.scale == "none" else self.scale
        facts = {
            "version": VERSION,
            "bands": list(self._bands),
            "channels": names,
            "scale": shown,
            "part": self._part,
            "complex": complex_ and self._part == "keep",
            "radar": shown != "none" or complex_ or is_radar(self._bands),
            "chip": chip,
            "side": int(np.median(self.rows[:, 3:].min(1)[self.rows[:, 3] > 0])) if self.rows[:, 3].any() else chip,
        }
        found = statistics.fit(self, facts)
        self._check_mixed(found.pop("negative"))
        return {**facts, **found}

    def _check_mixed(self, negative: list[float]) -> None:
        """Polarisations that are here negative and there not are decibels here and not there."""
        if self.scale != "none" or not is_radar(self._bands) or self._is_complex():
            return
        some = [share > 0.2 for share in negative]
        if any(some) and not all(some):
            raise UserError(
                f"{sum(some)} of {len(some)} chips looked at have many negative values and the others have none, so "
                "that some scenes seem to be decibels and some not: put them apart, or declare --stored and --scale"
            )

    def summary(self) -> list[dict[str, str]]:
        """What `inspect` prints: a row a band."""
        return statistics.summary(self.facts, self.scenes, self._places, self.shares())

    def shares(self) -> NDArray[np.float64]:
        """[n, 3] rows, columns and valid share of the chips that statistics look at."""
        found = [self.or_none(index) for index in self.some(statistics.FITTED)]
        return np.array([[*one["valid"].shape, float(one["valid"].float().mean())] for one in found if one is not None])
