"""Segmentation by few labelled volumes: a frozen dense probe and fine-tuning, each beside an untrained encoder.

All start from the same heads and see the same volumes, crops and number of steps. Nothing is chosen by test labels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlabeled.contract import to_device
from unlabeled.data.collate import collate
from unlabeled.errors import UserError, choose, nearest
from unlabeled.precision import PRECISIONS, Precision, autocast
from unlabeled.randomness import Draws, sample_keys
from unlabeled.saved import Saved, describe, load
from unlabeled.schedules import warmup_cosine
from unlabeled_medical.dense import Decoder, LinearProbe, Voxelwise
from unlabeled_medical.patches import VolumeEncoder, centres
from unlabeled_medical.readers import VolumeReader
from unlabeled_medical.turns import axes_of

FRESH = 1000  # first seed of untrained encoders, away from those of training
HEADS: dict[str, Callable[[VolumeEncoder, int, int], nn.Module]] = {
    "probe": lambda encoder, classes, width: LinearProbe(encoder, classes),
    "finetune": lambda encoder, classes, width: (
        Voxelwise(encoder, classes) if encoder.decodes else Decoder(encoder, classes, width)
    ),
}
BASELINES = {"probe": "untrained, frozen", "finetune": "from scratch"}


@dataclass(frozen=True)
class Budget:
    """How long a head is trained; the same for every encoder.

    Args:
        steps: of AdamW.
        batch_size: crops a step.
        lr: at its peak, after a tenth of the steps; down to 0 along a cosine.
        weight_decay: of all weights.
        encoder_rate: a pre-trained encoder's rate as a share of the decoder's; from scratch it is the decoder's own.
        width: channels of the decoder at the finest scale, a multiple of 8; of encoders that have none of their own.
        precision: of forward passes: fp32, or bf16 autocast.
        mirror: axes, of d, h and w, along which tested volumes are mirrored too; the mean of all mirrorings' scores
            counts, as in nnU-Net. Those that crops are mirrored along in training are the sensible ones.
    """

    steps: int = 300
    batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.01
    encoder_rate: float = 1.0
    width: int = 16
    precision: Precision = "fp32"
    mirror: str = ""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise UserError("steps and batch_size are at least 1, lr is above 0, and weight_decay not below 0")
        if self.width < 8 or self.width % 8:
            raise UserError(f"width is a multiple of 8, not {self.width}")
        if not 0 <= self.encoder_rate <= 1:
            raise UserError(f"encoder_rate is a share of the decoder's rate, from 0 to 1, not {self.encoder_rate:g}")
        choose("precision", self.precision, PRECISIONS)
        axes_of("mirror", self.mirror)


@dataclass(frozen=True)
class Score:
    """Means over the test volumes, one a seed, of one structure."""

    features: str
    mode: str
    volumes: int  # labelled ones that were trained on
    structure: str
    dice: tuple[float, ...]
    distance: tuple[float, ...]  # mm, average symmetric surface distance where the structure was found
    missed: int = 0  # test volumes, over all seeds, in which nothing of the structure was found

    def row(self) -> dict[str, str]:
        """As a table shows it."""
        far = f"{np.mean(self.distance):.3f} ± {np.std(self.distance):.3f}"
        return {
            "features": self.features,
            "mode": self.mode,
            "volumes": str(self.volumes),
            "structure": self.structure,
            "dice": f"{np.mean(self.dice):.4f} ± {np.std(self.dice):.4f}",
            "surface distance (mm)": far if np.isfinite(self.distance).all() else "not found in every seed",
            "missed": str(self.missed),
            "seeds": str(len(self.dice)),
        }


def save(scores: Sequence[Score], path: Path) -> None:
    """Write JSON."""
    path.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")


def segment(
    runs: Sequence[str | Path],
    images: str,
    labels: str,
    *,
    test: int = 0,
    shares: Sequence[float] = (1.0,),
    modes: Sequence[str] = ("probe", "finetune"),
    seeds: int = 3,
    first_seed: int = 0,
    budget: Budget | None = None,
    view: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Score]:
    """Dice and surface distance on the last volumes by name, after training on a share of the others.

    Args:
        runs: run folders; several are one a seed of pre-training and take turns.
        images: what the runs' reader takes.
        labels: segmentations by the same names.
        test: how many of the last volumes are tested on; 0: a fifth.
        shares: of the other volumes, those whose labels are used; another choice each seed, nested in larger ones.
        modes: probe (frozen encoder, linear in its maps), finetune (a decoder, the encoder's own where it has one;
            everything trained).
        seeds: how many; of the choice of volumes, the heads, the crops and the untrained encoders.
        first_seed: the others follow it.
        view: options of the crops that are trained on, where they are not those of pre-training: what may be mirrored
            without labels need not be with them.
        say: told of every result.

    Raises:
        UserError: volumes and segmentations do not belong together, or an option makes no sense.
    """
    unknown = [mode for mode in modes if mode not in HEADS]
    if unknown:
        raise UserError(f"no mode is called {unknown[0]!r}; {nearest(unknown[0], HEADS)}")
    if seeds < 1 or not all(0 < share <= 1 for share in shares):
        raise UserError("seeds must be at least 1, and shares above 0 and up to 1")
    saved = [describe(run) for run in runs]
    task = _Task.of(saved[0], images, labels, test, budget or Budget(), view or {}, device or torch.device("cpu"))
    scores: list[Score] = []
    for mode in modes:
        for share in shares:
            for pretrained in (True, False):
                name = f"trained ({saved[0].method})" if pretrained else BASELINES[mode]
                found = []
                for seed in range(first_seed, first_seed + seeds):
                    chosen = runs[seed % len(runs)]
                    encoder = load(chosen) if pretrained else saved[0].make_encoder(FRESH + seed)
                    rate = task.budget.encoder_rate if pretrained else 1.0
                    found.append(task.run(encoder, mode, task.few(share, seed), seed, rate))
                    say(f"{mode}, {share:.0%} of the labels, {name}, seed {seed}: dice {found[-1].dice.mean():.4f}")
                scores += _scores(name, mode, len(task.few(share, 0)), found)
    return scores


@dataclass(frozen=True)
class _Measured:
    dice: NDArray[np.float64]  # [structures]
    distance: NDArray[np.float64]
    missed: NDArray[np.int64]


def _scores(name: str, mode: str, volumes: int, found: Sequence[_Measured]) -> list[Score]:
    scores = []
    for at in range(len(found[0].dice)):
        dice = tuple(float(one.dice[at]) for one in found)
        distance = tuple(float(one.distance[at]) for one in found)
        missed = sum(int(one.missed[at]) for one in found)
        scores.append(Score(name, mode, volumes, str(at + 1), dice, distance, missed))
    return scores


@dataclass(frozen=True)
class _Task:
    """Volumes with their segmentations, and how to train on some and test on others."""

    saved: Saved
    reader: VolumeReader
    truth: Sequence[NDArray[Any] | None]  # [D, H, W] classes
    train: Tensor  # int64, numbers of volumes
    test: Tensor
    classes: int
    budget: Budget
    device: torch.device
    view: Any = field(repr=False)

    @staticmethod
    def of(
        saved: Saved,
        images: str,
        labels: str,
        test: int,
        budget: Budget,
        view: Mapping[str, Any],
        device: torch.device,
    ) -> _Task:
        reader = saved.make_reader(images)
        if not isinstance(reader, VolumeReader):
            raise UserError(f"reader {saved.reader.name!r} has no segmentations; pre-train on volumes")
        truth = reader.segmentations(labels)
        known = [index for index, one in enumerate(truth) if one is not None]
        test = test or len(known) // 5
        if not 0 < test < len(known):
            raise UserError(f"{len(known)} volumes have a segmentation, so that {test} cannot be tested on")
        numbers = torch.tensor(known)
        classes = 1 + max(int(one.max()) for one in truth if one is not None)
        made = saved.make_view(**view)
        return _Task(saved, reader, truth, numbers[:-test], numbers[-test:], max(classes, 2), budget, device, made)

    def few(self, share: float, seed: int) -> Tensor:
        """The labelled volumes of a seed, at least one; a larger share holds a smaller one."""
        order = Draws(sample_keys(seed, 0, self.train)).fork("few labels").bits(1)[:, 0].argsort()
        return self.train[order[: max(1, round(share * len(self.train)))]]

    def run(self, encoder: Any, mode: str, few: Tensor, seed: int, rate: float = 1.0) -> _Measured:
        """Train a head, and an encoder at a share of its rate, on a few volumes; measure on those of the test."""
        assert isinstance(encoder, VolumeEncoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = HEADS[mode](encoder, self.classes, self.budget.width).to(self.device)
            self._fit(model, few, seed, rate)
        return self._measure(model.eval())

    def _fit(self, model: nn.Module, few: Tensor, seed: int, rate: float) -> None:
        from monai.losses.dice import DiceCELoss

        loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        plan, shares = self.budget, {"encoder": rate, "head": 1.0}
        groups: dict[str, list[Tensor]] = {part: [] for part in shares}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                groups["encoder" if name.startswith("encoder.") else "head"].append(weight)
        weights = [weight for group in groups.values() for weight in group]
        shared = [{"params": group, "share": shares[part]} for part, group in groups.items() if group]
        optimizer = torch.optim.AdamW(shared, lr=plan.lr, weight_decay=plan.weight_decay)
        model.train()
        for step in range(plan.steps):
            image, wanted = self._batch(few, seed, step)
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * warmup_cosine(step, plan.steps, plan.lr, plan.steps // 10)
            optimizer.zero_grad()
            loss = loss_of(self._scores(model, image), wanted[:, None])
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()

    def _scores(self, model: nn.Module, image: Tensor) -> Tensor:
        with autocast(self.budget.precision, self.device):
            scores: Tensor = model(image)
        return scores.float()

    def _mirrored(self, model: nn.Module, image: Tensor) -> Tensor:
        """Mean scores of [B, C, D, H, W] and its mirrorings, mirrored back."""
        axes = [2 + axis for axis in axes_of("mirror", self.budget.mirror)]
        turns = [turn for count in range(len(axes) + 1) for turn in combinations(axes, count)]
        found = [self._scores(model, image.flip(turn)).flip(turn) for turn in turns]
        return torch.stack(found).mean(0)

    def _batch(self, few: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Augmented crops [B, C, S, S, S] and the classes of their voxels [B, S, S, S]."""
        size, view = self.budget.batch_size, self.view
        keys = sample_keys(seed, 1 + step, torch.arange(size))
        chosen = few[Draws(keys).fork("volume").integers(0, len(few), 1)[:, 0]].tolist()
        draws = Draws(keys).fork("crop").each()
        crops = [view.sample(self.reader[number], "global", one) for number, one in zip(chosen, draws, strict=True)]
        batch = to_device(collate(crops, self.saved.registry), self.device)
        batch = view.batch(batch, "global", Draws(keys).fork("batch"))
        image, places = batch["image"], batch["where"].cpu()
        wanted = [
            classes_at(where, self._truth(number), image.shape[2:])
            for where, number in zip(places, chosen, strict=True)
        ]
        return image, torch.stack(wanted).to(self.device)

    def _truth(self, number: int) -> NDArray[Any]:
        found = self.truth[number]
        assert found is not None, "volumes without a segmentation are neither trained on nor tested on"
        return found

    @torch.no_grad()
    def _measure(self, model: nn.Module) -> _Measured:
        """Whole test volumes by MONAI's sliding windows of the crop's size, half of which overlap."""
        from monai.inferers.utils import sliding_window_inference
        from monai.metrics.meandice import compute_dice

        scores_of = partial(self._mirrored, model)
        dice, distance = [], []
        for number in self.test.tolist():
            sample = self.reader[number]
            image = normalised(sample["image"], sample["levels"])[None].to(self.device)
            floor = float(sample["levels"][0, 4])
            scores: Any = sliding_window_inference(
                image, self.view.side, 4, scores_of, overlap=0.5, mode="gaussian", cval=floor
            )
            guess = one_hot(scores.argmax(1)[0].cpu(), self.classes)
            truth = one_hot(torch.from_numpy(self._truth(number)), self.classes)
            dice.append(compute_dice(guess, truth, include_background=False)[0].double().numpy())
            distance.append(surface_distance(guess, truth, sample["spacing"]))
        far = np.array(distance)
        return _Measured(np.nanmean(dice, 0), _finite_mean(far), (~np.isfinite(far)).sum(0))


def surface_distance(guess: Tensor, truth: Tensor, spacing: Tensor) -> NDArray[np.float64]:
    """Average symmetric surface distance [K - 1] in mm, of one-hot [1, K, D, H, W]; no number where there is none."""
    from monai.metrics.surface_distance import compute_average_surface_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI 1.6 warns of its own argument, and of what the result says: not found
        found = compute_average_surface_distance(guess, truth, symmetric=True, spacing=spacing.tolist())
    distance: NDArray[np.float64] = found[0].double().numpy()
    return distance


def _finite_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column means of what is finite, NaN where nothing is."""
    kept = np.isfinite(values)
    total = np.where(kept, values, 0).sum(0)
    mean: NDArray[np.float64] = np.divide(total, kept.sum(0), out=np.full(total.shape, np.nan), where=kept.any(0))
    return mean


def normalised(image: Tensor, levels: Tensor) -> Tensor:
    """A stored volume [C, D, H, W] as an encoder's numbers; levels [C, 5] of the reader."""
    low, high, shift, scale = levels[:, :4].T[..., None, None, None]
    made: Tensor = (image.float().clamp(low, high) - shift) / scale
    return made


def one_hot(classes: Tensor, count: int) -> Tensor:
    """[D, H, W] -> [1, K, D, H, W] float."""
    return torch.nn.functional.one_hot(classes.long(), count).movedim(-1, 0)[None].float()


def classes_at(where: Tensor, truth: NDArray[Any], shape: Sequence[int]) -> Tensor:
    """Classes [D, H, W] int64 of a crop's voxels, the nearest ones; 0 outside of the volume.

    Args:
        where: [3, 4], takes places of the crop to places of the volume, both in [0, 1].
        truth: [d, h, w] of the volume; only what is looked at is read.
        shape: of the crop.
    """
    places = centres(list(shape), where.device)[0] @ where[:, :3].T + where[:, 3]
    sides = torch.tensor(truth.shape)
    index = (places * sides).floor().long()
    inside = ((index >= 0) & (index < sides)).all(1)
    found = torch.zeros(len(index), dtype=torch.int64)
    found[inside] = torch.from_numpy(truth[tuple(index[inside].T.numpy())].astype(np.int64))
    return found.view(*shape)
