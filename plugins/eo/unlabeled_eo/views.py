"""Random views of chips. The sample stage cuts, in a loader worker; the batch stage changes, on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch, Facts, Kind, Sample, View
from unlabeled.errors import UserError, check_bounds
from unlabeled.randomness import Draws
from unlabeled_eo import scales, speckle, statistics, styles

Bounds = tuple[float, float]
RANDOM: tuple[Kind, ...] = ("global", "local")
TRIES = 4  # places that a crop chooses from, where some of the chip is not valid
STEP, LEAST, MOST = 8, 16, 224  # pixels: default crops are multiples of the first, between the others


def default_crop(facts: Facts) -> int:
    """Most of a chip, so that crops differ, up to 224 pixels."""
    side = STEP * math.floor(min(facts["side"], facts["chip"]) * 0.875 / STEP)
    return int(min(max(side, LEAST), MOST))


class Crops(View):
    """Square crops, mirrored, and turned and zoomed if asked: what chips of every sensor take.

    A batch is {"image": [B, C, S, S], "valid": [B, S, S] bool, "where": [B, 2, 3], which takes places of the crop to
    those of the chip, both (row, column) in [0, 1]}. The whole view is the middle of the chip. Where a crop reaches out
    of its chip nothing is valid.

    Args:
        facts: of the reader.
        crop: pixels a side; none: seven eighths of a chip, up to 224.
        local: pixels a side of local crops; none: half of `crop`.
        zoom: range by which global and local crops are enlarged; 1, 1: not at all, as chips of one resolution want it.
        flips: axes that are mirrored half of the time, of h and w; "": none, where the range direction matters.
        turns: a quarter of the views each are turned by 0, 90, 180 and 270 degrees.
        style: share of the steps in which every chip of a view gets one style, the low frequencies' amplitudes of a
            chip of the training data (batch styles standardisation, arXiv 2303.06088).
    """

    def __init__(
        self,
        facts: Facts,
        *,
        crop: int | None = None,
        local: int | None = None,
        zoom: Bounds = (1.0, 1.0),
        flips: str = "w",
        turns: bool = False,
        style: float = 0.0,
    ):
        self.facts = facts
        crop = default_crop(facts) if crop is None else crop
        local = max(crop // 2, 1) if local is None else local
        if min(crop, local) < 2:
            raise UserError(f"a crop has at least 2 pixels a side, not {min(crop, local)}")
        if not set(flips) <= set("hw"):
            raise UserError(f"flips names axes by the letters h and w, not {flips!r}")
        self.side, self._local = crop, local
        self._zoom, self._flips, self._turns = check_bounds("zoom", zoom, 0.1, 10.0), flips, turns
        self._style, self._styles = style, torch.tensor(facts.get("styles", []) if style else [])
        if not 0 <= style <= 1 or (style and facts["complex"]):
            raise UserError("style is a share of the steps from 0 to 1, of real numbers: complex chips have no styles")
        if style and not len(self._styles):
            raise UserError("these data were read before styles were kept with them: train anew, or leave out style")
        self.transforms = 4

    # ---- the sample stage

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        height, width = sample["valid"].shape
        side = self._local if kind == "local" else self.side
        if kind == "whole":
            taken, top, left = side, (height - side) // 2, (width - side) // 2
        else:
            zoom = math.exp(float(draws.uniform(1, low=math.log(self._zoom[0]), high=math.log(self._zoom[1]))))
            taken = max(1, round(side / (zoom if kind in RANDOM else 1.0)))
            top, left = self._place(sample["valid"], taken, draws)
        cut = {name: _cut(sample[name], top, left, taken) for name in ("image", "valid")}
        if taken != side:
            cut = _resized(cut["image"], cut["valid"], side)
        where = torch.tensor([[taken / height, 0.0, top / height], [0.0, taken / width, left / width]])
        return {**sample, **cut, "where": where}

    @staticmethod
    def _place(valid: Tensor, side: int, draws: Draws) -> tuple[int, int]:
        """The first of some random places, or a better one where less of it is valid than half."""
        places = [
            (_start(down, valid.shape[0], side), _start(over, valid.shape[1], side))
            for down, over in draws.uniform(TRIES, 2)[0].tolist()
        ]
        if bool(valid.all()):
            return places[0]
        shares = [float(_cut(valid, top, left, side).float().mean()) for top, left in places]
        good = [place for place, share in zip(places, shares, strict=True) if share > 0.5]
        return good[0] if good else places[shares.index(max(shares))]

    # ---- the batch stage

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        if kind == "whole":
            return batch
        for axis in self._flips:
            batch = _flipped(batch, draws.chance(0.5, 1)[:, 0], "hw".index(axis))
        if self._turns and kind in RANDOM:
            batch = self.transform(batch, draws.integers(0, 4, 1)[:, 0])
        if kind in RANDOM and self._style:
            batch = self._styled(batch, draws.shared().fork("style"))
        return self.change(batch, draws) if kind in RANDOM else batch

    def _styled(self, batch: Batch, draws: Draws) -> Batch:
        """All rows that are of one step and view in one style, in some of the steps."""
        image, there = batch["image"], statistics.there(batch)
        wanted = self._styles.to(image.device)[draws.integers(0, len(self._styles), 1)[:, 0]]
        now = draws.chance(self._style, 1)[:, :, None, None]
        changed = styles.styled(styles.filled(image, there), wanted)
        if self.facts["scale"] in scales.NOT_NEGATIVE:
            changed = changed.clamp(min=0)  # there is no power below nothing
        return {**batch, "image": torch.where(now & there, changed, image)}

    def change(self, batch: Batch, draws: Draws) -> Batch:
        """The changes of values that global and local views have."""
        return batch

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        """Turned counter-clockwise by `which` quarters."""
        for number in range(1, 4):
            batch = _chosen(batch, _turned(batch, number), which == number)
        return batch


def _start(u: float, size: int, side: int) -> int:
    """Where a part of `side` begins, u in [0, 1) of the way; in the middle of what is smaller than it."""
    return int(u * (size - side + 1)) if size >= side else (size - side) // 2


def _cut(values: Tensor, top: int, left: int, side: int) -> Tensor:
    """A square of [..., H, W], zero or False where it reaches out."""
    height, width = values.shape[-2:]
    out = values[..., max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    pad = (max(-left, 0), max(left + side - width, 0), max(-top, 0), max(top + side - height, 0))
    return F.pad(out, pad) if any(pad) else out


def _resized(image: Tensor, valid: Tensor, side: int) -> dict[str, Tensor]:
    """Bilinear, and by the nearest pixel what is valid."""
    parts = [image.real, image.imag] if image.is_complex() else [image]
    done = [F.interpolate(part[None], (side, side), mode="bilinear", antialias=True)[0] for part in parts]
    nearest = F.interpolate(valid[None, None].float(), (side, side), mode="nearest")[0, 0] > 0.5
    return {"image": torch.complex(*done) if len(done) == 2 else done[0], "valid": nearest}


def _chosen(batch: Batch, other: Batch, rows: Tensor) -> Batch:
    """Rows of the other batch where `rows` [B] says so."""
    return {
        name: torch.where(rows.view(-1, *(1,) * (value.dim() - 1)), other[name], value) for name, value in batch.items()
    }


def _flipped(batch: Batch, rows: Tensor, axis: int) -> Batch:
    where = batch["where"].clone()
    where[:, axis, 2] += where[:, axis, axis]
    where[:, axis, axis] *= -1
    turned = {**batch, "image": batch["image"].flip(axis - 2), "valid": batch["valid"].flip(axis - 2), "where": where}
    return _chosen(batch, turned, rows)


def _turned(batch: Batch, quarters: int) -> Batch:
    turned = {name: torch.rot90(batch[name], quarters, (-2, -1)) for name in ("image", "valid")}
    # A quarter turn shows at (r, c) what was at (c, 1 − r).
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    turn = torch.linalg.matrix_power(quarter, quarters).to(batch["where"])
    return {**batch, **turned, "where": batch["where"] @ turn}


class SarViews(Crops):
    """Crops with speckle, more looks or less speckle; no colours, turns or zoom unless asked for.

    Args:
        facts: of the reader.
        crop: pixels a side; none: seven eighths of a chip, up to 224.
        local: pixels a side of local crops; none: half of `crop`.
        zoom: range by which global and local crops are enlarged; 1, 1: not at all.
        flips: axes that are mirrored half of the time, of h and w; "": none, where the range direction matters.
        turns: whether views are turned by quarters.
        speckle: share of views that get gamma speckle.
        looks: of that speckle, drawn between these: 1 is strong, 20 weak.
        multilook: share of views that are averaged over 2 × 2 or 3 × 3 pixels.
        despeckle: share of views that Lee's filter smooths.
        enl: equivalent number of looks of the data, which that filter must know.
        gain: largest change in dB of a whole view, for sensors whose calibration differs.
        aperture: share of the azimuth spectrum that views of complex data show, drawn between this and 1.
        style: share of the steps in which every chip of a view gets one style, the low frequencies' amplitudes of a
            chip of the training data (batch styles standardisation, arXiv 2303.06088).
    """

    def __init__(
        self,
        facts: Facts,
        *,
        crop: int | None = None,
        local: int | None = None,
        zoom: Bounds = (1.0, 1.0),
        flips: str = "w",
        turns: bool = False,
        speckle: float = 0.5,
        looks: Bounds = (2.0, 20.0),
        multilook: float = 0.1,
        despeckle: float = 0.1,
        enl: float = 4.0,
        gain: float = 0.0,
        aperture: float = 1.0,
        style: float = 0.0,
    ):
        super().__init__(facts, crop=crop, local=local, zoom=zoom, flips=flips, turns=turns, style=style)
        if not facts["radar"]:
            raise UserError(
                "view 'sar' is for radar, and nothing says that these data are: declare it, as in --stored amplitude, "
                "or take --view optical"
            )
        if not all(0 <= share <= 1 for share in (speckle, multilook, despeckle)) or enl <= 0 or gain < 0:
            raise UserError("speckle, multilook and despeckle are shares from 0 to 1, enl is above 0, gain at least 0")
        if not 0 < aperture <= 1:
            raise UserError(f"aperture is a share of the spectrum above 0, up to 1, not {aperture:g}")
        if aperture < 1 and not facts["complex"]:
            raise UserError("sub-apertures need complex data: read them with --part keep")
        self._speckle, self._looks = speckle, check_bounds("looks", looks, 0.1, 1e4)
        self._multilook, self._despeckle, self._enl = multilook, despeckle, enl
        self._gain, self._aperture = gain, aperture

    def change(self, batch: Batch, draws: Draws) -> Batch:
        image, valid, scale = batch["image"], batch["valid"][:, None], self.facts["scale"]
        if image.is_complex() and self._aperture < 1:
            part, share = draws.uniform(2).unbind(1)
            image = speckle.sub_aperture(image, part, self._aperture + (1 - self._aperture) * share)
        if not image.is_complex():
            image = self._looked(image, valid, draws)
        if self._speckle:
            looks = draws.uniform(1, low=math.log(self._looks[0]), high=math.log(self._looks[1]))[:, 0].exp()
            noisy = speckle.speckled(image, looks, scale, draws.fork("speckle"))
            image = torch.where(draws.chance(self._speckle, 1)[:, :, None, None], noisy, image)
        if self._gain:
            decibels = draws.uniform(1, low=-self._gain, high=self._gain)[:, :, None, None]
            factor = 10 ** (decibels / (20 if scale == "amplitude" or image.is_complex() else 10))
            image = image + decibels if scale == "db" and not image.is_complex() else image * factor
        return {**batch, "image": torch.where(valid, image, 0)}

    def _looked(self, image: Tensor, valid: Tensor, draws: Draws) -> Tensor:
        scale = self.facts["scale"]
        if self._multilook:
            which = draws.uniform(1)[:, :, None, None]
            for number, side in enumerate((2, 3)):
                now = (which >= number * self._multilook / 2) & (which < (number + 1) * self._multilook / 2)
                image = torch.where(now, speckle.smoothed(image, valid, side, scale), image)
        if self._despeckle:
            looks = torch.full((len(image),), self._enl, device=image.device)
            smooth = speckle.despeckled(image, valid, 5, looks, scale)
            image = torch.where(draws.chance(self._despeckle, 1)[:, :, None, None], smooth, image)
        return image


class OpticalViews(Crops):
    """Crops, zoomed and turned, whose bands are each scaled and shifted at random, and some of them dropped.

    Args:
        facts: of the reader.
        crop: pixels a side; none: seven eighths of a chip, up to 224.
        local: pixels a side of local crops; none: half of `crop`.
        zoom: range by which global and local crops are enlarged.
        flips: axes that are mirrored half of the time, of h and w.
        turns: whether views are turned by quarters.
        contrast: largest change of a band's deviation, as a share.
        brightness: largest shift of a band, in its deviations.
        drop: share of the bands of a view that show their mean; one always stays.
        blur: share of views that are blurred.
        style: share of the steps in which every chip of a view gets one style, the low frequencies' amplitudes of a
            chip of the training data (batch styles standardisation, arXiv 2303.06088).
    """

    def __init__(
        self,
        facts: Facts,
        *,
        crop: int | None = None,
        local: int | None = None,
        zoom: Bounds = (0.8, 1.6),
        flips: str = "hw",
        turns: bool = True,
        contrast: float = 0.2,
        brightness: float = 0.2,
        drop: float = 0.1,
        blur: float = 0.2,
        style: float = 0.0,
    ):
        super().__init__(facts, crop=crop, local=local, zoom=zoom, flips=flips, turns=turns, style=style)
        if not 0 <= contrast < 1 or brightness < 0 or not 0 <= drop < 1 or not 0 <= blur <= 1:
            raise UserError("contrast and drop are shares below 1, blur one up to 1, and brightness is at least 0")
        self._contrast, self._brightness, self._drop, self._blur = contrast, brightness, drop, blur

    def change(self, batch: Batch, draws: Draws) -> Batch:
        image, valid = batch["image"], batch["valid"][:, None]
        if image.is_complex():
            raise UserError("view 'optical' changes bands of real numbers: take view 'sar', or read --part amplitude")
        C = image.shape[1]
        mean, std = (torch.tensor(self.facts[name], device=image.device)[:, None, None] for name in ("mean", "std"))
        scale = draws.uniform(C, low=1 - self._contrast, high=1 + self._contrast)[:, :, None, None]
        shift = draws.uniform(C, low=-self._brightness, high=self._brightness)[:, :, None, None]
        image = mean + (image - mean) * scale + std * shift
        if self._blur:
            soft = speckle.smoothed(image, valid, 3, "none")
            image = torch.where(draws.chance(self._blur, 1)[:, :, None, None], soft, image)
        if self._drop and C > 1:
            u = draws.uniform(C)
            dropped = (u < self._drop) & (u < u.amax(1, keepdim=True))
            image = torch.where(dropped[:, :, None, None], mean, image)
        return {**batch, "image": torch.where(valid, image, 0)}


class SensorViews(Crops):
    """Crops of which each shows the bands of one sensor only, a random one of those that a scene has.

    Two views of Sentinel-1 and -2 together are then often a view of each, as CROMA's are (arXiv 2311.00566). It takes
    an encoder that knows absent bands (channel_vit).

    Args:
        facts: of the reader.
        crop: pixels a side; none: seven eighths of a chip, up to 224.
        local: pixels a side of local crops; none: half of `crop`.
        flips: axes that are mirrored half of the time, of h and w.
        turns: whether views are turned by quarters.
        sensors: bands of each sensor by their number, from 1: "1-2,3-14"; none: polarisations, and all others.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        crop: int | None = None,
        local: int | None = None,
        flips: str = "hw",
        turns: bool = True,
        sensors: str | None = None,
    ):
        super().__init__(facts, crop=crop, local=local, flips=flips, turns=turns)
        self._sensors = _sensors(sensors, facts["channels"])

    def change(self, batch: Batch, draws: Draws) -> Batch:
        B, C = batch["image"].shape[:2]
        there = batch.get("bands", torch.ones(B, C, dtype=torch.bool, device=batch["image"].device))
        sensors = self._sensors.to(there.device)  # [S, C] bool
        has = (there[:, None] & sensors).any(2)  # [B, S]
        chosen = torch.where(has, draws.uniform(len(sensors)), -1.0).argmax(1)
        bands = there & sensors[chosen]
        return {**batch, "image": torch.where(bands[:, :, None, None], batch["image"], 0), "bands": bands}


def _sensors(text: str | None, names: list[str]) -> Tensor:
    """[S, C] bool: which bands are of which sensor.

    Raises:
        UserError: it is no list of ranges, or one is outside of the bands.
    """
    from unlabeled_eo.scenes import is_radar

    if text is None:
        radar = torch.tensor([is_radar([name]) for name in names])
        return torch.stack([radar, ~radar]) if radar.any() and not radar.all() else torch.ones(1, len(names)).bool()
    out = torch.zeros(len(text.split(",")), len(names), dtype=torch.bool)
    for row, part in enumerate(text.split(",")):
        first, _, last = part.strip().partition("-")
        if (
            not first.isdigit()
            or not (last or first).isdigit()
            or not 1 <= int(first) <= int(last or first) <= len(names)
        ):
            raise UserError(f"sensors are ranges of the {len(names)} bands, as in 1-2,3-{len(names)}, not {text!r}")
        out[row, int(first) - 1 : int(last or first)] = True
    return out


VIEWS: Mapping[str, Callable[..., View]] = {"sar": SarViews, "optical": OpticalViews, "sensors": SensorViews}
