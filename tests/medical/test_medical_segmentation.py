"""From pre-training to Dice: what is bright is to be found, which every head can learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled.saved import load
from unlabeled.training.pretrain import pretrain
from unlabeled_medical.dense import Decoder, Voxelwise
from unlabeled_medical.readers import VolumeReader
from unlabeled_medical.segmentation import HEADS, Budget, Score, _finite_mean, _Task, segment

Write = Callable[..., Path]
QUICK = Budget(steps=40, batch_size=2, lr=1e-2)


@pytest.fixture
def balls(nifti: Write) -> tuple[str, str]:
    """Six volumes with a bright ball somewhere and a less bright box, and their classes."""
    chance = np.random.default_rng(0)
    for number in range(6):
        grid, middle = np.indices((18, 16, 14)), chance.integers(5, 9, (3, 1, 1, 1))
        ball = (((grid - middle) ** 2).sum(0) < 16).astype(np.uint8)
        classes = np.where(ball, 1, 2 * ((grid[0] > 13) & (grid[1] > 8))).astype(np.uint8)
        voxels = np.choose(classes, [0, 1000, 500]) + chance.normal(0, 30, classes.shape)
        affine = np.diag([-1.0 if number % 2 else 1.0, 1, 1, 1])
        nifti(f"images/{number}.nii.gz", voxels.astype(np.int16), affine)
        labels = nifti(f"labels/{number}.nii.gz", classes, affine)
    return str(labels.parents[1] / "images"), str(labels.parent)


@pytest.fixture
def run(balls: tuple[str, str], tmp_path: Path) -> str:
    pretrain(
        "medical",
        balls[0],
        "mae",
        out=tmp_path / "run",
        encoder={"name": "resunet", "planes": 8, "blocks": (1, 1)},
        epochs=1,
        batch_size=3,
        quiet=True,
    )
    return str(tmp_path / "run")


def test_both_heads_learn_and_stand_beside_their_baselines(run: str, balls: tuple[str, str]) -> None:
    scores = segment([run], *balls, test=2, seeds=1, budget=QUICK)
    assert [(score.features, score.mode, score.structure, score.volumes) for score in scores] == [
        (name, mode, structure, 4)
        for mode, names in {
            "probe": ("trained (mae)", "untrained, frozen"),
            "finetune": ("trained (mae)", "from scratch"),
        }.items()
        for name in names
        for structure in ("1", "2")
    ]
    tuned = [score.dice[0] for score in scores if score.mode == "finetune"]
    assert min(tuned) > 0.7
    assert all(0 <= score.dice[0] <= 1 and len(score.distance) == 1 for score in scores)


def test_a_unet_is_tuned_with_the_way_up_that_was_pretrained(balls: tuple[str, str], tmp_path: Path) -> None:
    from unlabeled.saved import describe

    unet = {"name": "unet", "planes": 8, "blocks": (1, 1)}
    pretrain(
        "medical", balls[0], "models_genesis", out=tmp_path / "run", encoder=unet, epochs=1, batch_size=3, quiet=True
    )
    encoder: Any = load(tmp_path / "run")
    fresh: Any = describe(tmp_path / "run").make_encoder(0)
    weights, start = encoder.way_up.state_dict(), fresh.way_up.state_dict()
    assert all(not torch.equal(weight, start[name]) for name, weight in weights.items()), "all of it learns"

    model = HEADS["finetune"](encoder, 3, 16)
    assert isinstance(model, Voxelwise)
    assert all(torch.equal(part, weights[name]) for name, part in model.encoder.way_up.state_dict().items())
    scores = segment([tmp_path / "run"], *balls, test=2, seeds=1, budget=QUICK)
    tuned = [score.dice[0] for score in scores if (score.mode, score.features[:7]) == ("finetune", "trained")]
    assert len(tuned) == 2
    assert min(tuned) > 0.7


def test_both_heads_learn_in_sixteen_bits(run: str, balls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    plain = Decoder.forward

    def spied(self: Decoder, image: torch.Tensor) -> torch.Tensor:
        seen.update({(out := plain(self, image)).dtype, next(self.parameters()).dtype})
        return out

    monkeypatch.setattr(Decoder, "forward", spied)
    scores = segment([run], *balls, test=2, seeds=1, budget=replace(QUICK, precision="bf16"))
    assert seen == {torch.bfloat16, torch.float32}
    assert min(score.dice[0] for score in scores if score.mode == "finetune") > 0.7


def test_scores_are_those_of_the_same_seed_whatever_ran_before(run: str, balls: tuple[str, str]) -> None:
    budget = Budget(steps=3, batch_size=2)
    torch.manual_seed(1)
    first = segment([run], *balls, test=2, seeds=2, budget=budget, modes=["probe"])
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = segment([run], *balls, test=2, seeds=2, budget=budget, modes=["probe"])
    assert [score.dice for score in again] == [score.dice for score in first]
    second = segment([run], *balls, test=2, seeds=1, first_seed=1, budget=budget, modes=["probe"])
    assert [score.dice for score in second] == [score.dice[1:] for score in first]
    assert torch.get_rng_state().equal(state)


def test_the_probe_leaves_the_encoder_alone(run: str, balls: tuple[str, str]) -> None:
    from unlabeled.saved import describe

    encoder: Any = load(run)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    task = _Task.of(describe(run), *balls, 2, Budget(steps=3), {}, torch.device("cpu"))
    task.run(encoder, "probe", task.few(1.0, 0), 0)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_pretrained_encoder_learns_at_a_share_of_the_rate(run: str, balls: tuple[str, str]) -> None:
    from unlabeled.saved import describe

    def moved(rate: float) -> tuple[float, float]:
        """How far the weights of the encoder go in a step, and all that there are."""
        encoder: Any = load(run)
        task = _Task.of(describe(run), *balls, 2, Budget(steps=1, weight_decay=0.0), {}, torch.device("cpu"))
        model = Decoder(encoder, 3, 16)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        task._fit(model, task.few(1.0, 0), 0, rate)
        far = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in model.named_parameters()}
        return max(by for name, by in far.items() if name.startswith("encoder.")), max(far.values())

    assert moved(0.0) == (0.0, pytest.approx(1e-3, rel=1e-2)), "AdamW's first step is as long as the rate"
    assert moved(0.25) == (pytest.approx(2.5e-4, rel=1e-2), pytest.approx(1e-3, rel=1e-2))
    with pytest.raises(UserError, match="encoder_rate is a share of the decoder's rate"):
        Budget(encoder_rate=2.0)


def test_crops_with_labels_may_differ_from_those_of_pretraining(run: str, balls: tuple[str, str]) -> None:
    from unlabeled.saved import describe

    def mirrored(**view: Any) -> list[bool]:
        """Which axes some of 32 crops are mirrored along."""
        task = _Task.of(describe(run), *balls, 2, Budget(), view, torch.device("cpu"))
        draws = Draws(sample_keys(0, 0, torch.arange(32)))
        crops = [task.view.sample(task.reader[0], "global", one)["where"] for one in draws.each()]
        turned: list[bool] = (torch.stack(crops)[:, :, :3].diagonal(dim1=1, dim2=2) < 0).any(0).tolist()
        return turned

    assert mirrored() == [True, True, True]
    assert mirrored(flips="w") == [False, False, True]
    wide = _Task.of(describe(run), *balls, 2, Budget(batch_size=2), {"crop": 24}, torch.device("cpu"))
    image, classes = wide._batch(wide.few(1.0, 0), 0, 0)
    assert image.shape == (2, 1, 24, 24, 24)
    assert classes.shape == (2, 24, 24, 24)
    for scale, sides in (((1.0, 1.0), [16]), ((0.5, 0.5), [32])):
        zoomed = _Task.of(describe(run), *balls, 2, Budget(), {"crop": 16, "scale": scale}, torch.device("cpu"))
        where = zoomed.view.sample(zoomed.reader[0], "global", Draws(sample_keys(0, 0, torch.arange(1))))["where"]
        assert (where[:, :3].abs().sum(1) * torch.tensor(zoomed.reader[0]["image"].shape[1:])).tolist() == sides * 3
    with pytest.raises(UserError, match="flips names axes by the letters"):
        segment([run], *balls, test=2, view={"flips": "left"})


def test_mirrored_scores_do_not_know_which_way_a_volume_lies(run: str, balls: tuple[str, str]) -> None:
    from unlabeled.saved import describe

    def task(mirror: str) -> _Task:
        return _Task.of(describe(run), *balls, 2, Budget(mirror=mirror), {}, torch.device("cpu"))

    torch.manual_seed(0)
    model = Decoder(load(run), 3, 16).eval()
    image = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        plain = task("")._mirrored(model, image)
        assert torch.equal(plain, model(image))
        once = task("w")._mirrored(model, image)
        torch.testing.assert_close(once, (plain + model(image.flip(4)).flip(4)) / 2)
        assert not torch.allclose(once, plain, atol=1e-3)
        every = task("dwh")
        torch.testing.assert_close(every._mirrored(model, image.flip(2, 4)), every._mirrored(model, image).flip(2, 4))
    with pytest.raises(UserError, match="mirror names axes by the letters"):
        Budget(mirror="left")


def test_few_labels_are_nested_and_never_of_the_test(run: str, balls: tuple[str, str]) -> None:
    from unlabeled.saved import describe

    task = _Task.of(describe(run), *balls, 2, Budget(), {}, torch.device("cpu"))
    assert task.test.tolist() == [4, 5]
    for seed in range(5):
        parts = [set(task.few(share, seed).tolist()) for share in (0.01, 0.5, 1.0)]
        assert [len(part) for part in parts] == [1, 2, 4]
        assert parts[0] < parts[1] < parts[2]
        assert parts[2] == {0, 1, 2, 3}
    assert len({tuple(task.few(0.5, seed).tolist()) for seed in range(9)}) > 2


def test_segmentations_lie_on_their_volumes_whatever_their_axes(balls: tuple[str, str]) -> None:
    reader = VolumeReader(balls[0], intensity="none")
    for at, truth in enumerate(reader.segmentations(balls[1])):
        assert truth is not None
        assert np.asarray(reader[at]["image"])[0][truth == 1].min() > 800


def test_segmentations_are_resampled_without_new_classes(balls: tuple[str, str]) -> None:
    reader = VolumeReader(balls[0], spacing=0.7)
    for at, truth in enumerate(reader.segmentations(balls[1])):
        assert truth is not None
        assert set(np.unique(truth)) == {0, 1, 2}
        assert truth.shape == reader[at]["image"].shape[1:]


def test_volumes_without_a_segmentation_are_left_out(run: str, balls: tuple[str, str]) -> None:
    (Path(balls[1]) / "1.nii.gz").unlink()
    reader = VolumeReader(balls[0])
    assert [truth is None for truth in reader.segmentations(balls[1])] == [at == 1 for at in range(6)]
    scores = segment([run], *balls, test=2, seeds=1, budget=Budget(steps=1), modes=["probe"])
    assert scores[0].volumes == 3


def test_volumes_may_be_called_as_nnunet_calls_channels(balls: tuple[str, str]) -> None:
    images = Path(balls[0])
    plain = VolumeReader(balls[0]).segmentations(balls[1])
    for number in range(6):
        (images / f"{number}.nii.gz").rename(images / f"{number}_0000.nii.gz")
    (images / "5_0001.nii.gz").symlink_to(images / "5_0000.nii.gz")
    found = VolumeReader(balls[0]).segmentations(balls[1])
    for of, truth in zip([*range(6), 5], found, strict=True):
        assert truth is not None
        assert np.array_equal(truth, plain[of])  # type: ignore[arg-type]


def test_an_empty_segmentation_is_one(balls: tuple[str, str], nifti: Write) -> None:
    nifti("labels/1.nii.gz", np.zeros((18, 16, 14), np.uint8))
    truth = VolumeReader(balls[0]).segmentations(balls[1])[1]
    assert truth is not None
    assert not truth.any()


def test_segmentations_that_do_not_fit(run: str, balls: tuple[str, str], nifti: Write, tmp_path: Path) -> None:
    reader = VolumeReader(balls[0])
    for folder, file, classes, said in (
        (
            "bad",
            "0.nii.gz",
            np.full((18, 16, 14), 0.5),
            "0.nii.gz cannot be used: its voxels are no numbers",
        ),
        ("other", "0.nii.gz", np.ones((9, 9, 9), np.uint8), "and its volume is not; give one on its grid"),
        ("named", "x.nii.gz", np.ones((18, 16, 14), np.uint8), "give them the same names"),
    ):
        nifti(f"{folder}/{file}", classes)
        with pytest.raises(UserError, match=said):
            reader.segmentations(str(tmp_path / folder))
    with pytest.raises(UserError, match="6 volumes have a segmentation, so that 6 cannot be tested on"):
        segment([run], *balls, test=6)
    with pytest.raises(UserError, match="no mode is called 'prob'; did you mean probe"):
        segment([run], *balls, modes=["prob"])


def test_what_was_not_found_has_no_distance() -> None:
    mean = _finite_mean(np.array([[1.0, np.inf, np.nan], [3.0, 4.0, np.inf]]))
    assert mean[:2].tolist() == [2.0, 4.0]
    assert np.isnan(mean[2])
    seeds = (1.0, np.nan), (1.0, 2.0)
    said = [Score("one", "probe", 3, "1", (0.0, 0.5), one).row()["surface distance (mm)"] for one in seeds]
    assert said == ["not found in every seed", "1.500 ± 0.500"]


def test_command(run: str, balls: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"medical evaluate-segmentation {run} {balls[0]} {balls[1]} --test 2 --seeds 1 --steps 2 --modes probe"
    crops = "--view.crop 12 --view.scale 0.9,1.1 --mirror w"
    assert main(f"{line} {crops} --shots 50%,100% --json {tmp_path}/scores.json".split()) == 0
    text = capsys.readouterr().out
    assert "surface distance (mm)" in text
    assert "note" not in text
    assert [row["volumes"] for row in json.loads((tmp_path / "scores.json").read_text())] == [2, 2, 2, 2, 4, 4, 4, 4]
    assert main(line.split()) == 0
    assert "note: crops with labels are mirrored and zoomed as in pre-training" in capsys.readouterr().out
    assert main(f"{line} --shots many".split()) == 2
    assert "shares of the labels" in capsys.readouterr().err
    assert main(f"{line} --view.scale 1".split()) == 2
    assert "it takes two numbers, as in 0.9,1.1, not '1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 0}, {"lr": 0.0}, {"width": 12}, {"width": 0}, {"precision": "fp16"}]
)
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"at least 1|above 0|multiple of 8|called 'fp16'"):
        Budget(**wrong)


def test_the_decoder_is_as_wide_as_asked(run: str) -> None:
    encoder: Any = load(run)
    widths = [Decoder(encoder, 3, width).leave[1].in_channels for width in (8, 32)]
    assert widths == [8, 32]
