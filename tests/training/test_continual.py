"""Runs that start from something: runs, files, libraries; longer runs; adapters; and all of them resumed exactly."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conftest_training import metrics
from unlabeled import load
from unlabeled.branches import Teacher, follow
from unlabeled.cli.main import main
from unlabeled.config import Config, load_config
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.lora import LowRank, adapt, merged
from unlabeled.training import loop
from unlabeled.training.initial import initialise
from unlabeled.training.pretrain import pretrain

SMALL: dict[str, Any] = {"batch_size": 64, "log_every": 2, "quiet": True, "seed": 3}
BYOL = {"name": "byol", "set": {"regress.hidden": 16, "regress.out": 8}}


def train(out: Path, method: Any = "mae", **options: Any) -> loop.Outcome:
    return pretrain("toy", "digits", method, out=out, **{"steps": 4, **SMALL, **options})


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "encoder" / "encoder.safetensors")


def model(run: Path, step: int) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from, of another width than the encoder's usual."""
    from unlabeled import plugins

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "toy"))
        plugins.load.cache_clear()
        run = tmp_path_factory.mktemp("runs") / "trained"
        train(run, encoder={"name": "vit", "width": 16, "dropout": 0.0})
    return run


def stopped(monkeypatch: pytest.MonkeyPatch, step: int, *arguments: Any, **options: Any) -> None:
    """A run that dies after a step, as if it were killed."""
    real = loop.Run.one_step

    def dying(self: loop.Run, micro_batches: Any) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        real(self, micro_batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "one_step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments, **options)


def assert_same(one: Path, two: Path, step: int) -> None:
    """Bit-identical metrics, weights, and all other state."""
    assert metrics(one) == metrics(two)
    first, second = model(one, step), model(two, step)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


# ---- from a run


def first_step(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> loop.Run:
    """The run as it is before its first step."""
    found: list[loop.Run] = []

    def keep(self: loop.Run) -> loop.Outcome:
        found.append(self)
        return loop.Outcome(0, 0)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "train", keep)
        train(*arguments, **options)
    return found[0]


@pytest.mark.parametrize("inner", ["", "encoder"])
def test_a_run_gives_encoder_weights_and_facts(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    run = first_step(monkeypatch, tmp_path / "run", BYOL, init=trained / inner)
    assert run.config.encoder.options["width"] == 16
    goal = weights(trained)
    assert all(torch.equal(value, goal[name]) for name, value in run.objective.encoder.state_dict().items())
    teacher = run.objective.teacher.module.state_dict()
    assert all(torch.equal(value, goal[name]) for name, value in teacher.items()), "the teacher starts from the student"
    assert run.step == 0
    assert not run.optimizer.state


def test_the_same_from_the_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"toy pretrain digits --method mae --init {trained} --steps 1 --batch-size 64 --out {tmp_path / 'run'}"
    assert main(line.split()) == 0
    assert f"note: the encoder starts from {trained}, step 4\n" in capsys.readouterr().out
    config = load_config(tmp_path / "run" / "config.yaml")
    assert (config["init"], config["encoder"]["width"]) == (str(trained), 16)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    assert main(f"toy pretrain --resume --out {tmp_path / 'again'}".split()) == 0


def test_another_encoder_is_refused_with_what_differs(trained: Path, tmp_path: Path) -> None:
    for encoder, words in (
        (
            {"name": "vit", "width": 32},
            r"'vit' of --init .* enter\.weight is \[16, 4\] there and \[32, 4\] here, and 19 w",
        ),
        ({"name": "vit", "width": 16, "depth": 2}, r"it has no trunk\.blocks\.1\.norm1\.weight, and 11 weights more"),
    ):
        with pytest.raises(UserError, match=words):
            train(tmp_path / "run", init=trained, encoder=encoder)
    with pytest.raises(UserError, match="holds no encoder yet"):
        train(tmp_path / "run", init=tmp_path)
    assert not (tmp_path / "run").exists()


# ---- from a file


def test_our_own_checkpoint_is_a_file_of_weights(trained: Path, tmp_path: Path) -> None:
    fresh = load(trained)
    with torch.no_grad():
        for value in fresh.parameters():
            value.zero_()
    note = initialise(fresh, str(trained / "checkpoints" / "step-00000004.pt"))
    assert note.startswith("21 of 21 weights of the encoder come from")
    assert "not used: terms.rebuild.decoder.blank" in note
    assert all(torch.equal(value, weights(trained)[name]) for name, value in fresh.state_dict().items())


class Holding(Encoder):
    """An encoder around a library's model."""

    backbone = "net"

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.own = nn.Linear(3, 3)


def library() -> nn.Sequential:
    """Such a model, with other inputs and a head."""
    return nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3), nn.Linear(3, 10))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pt"])
def test_a_file_fills_the_backbone_by_names_and_shapes(tmp_path: Path, suffix: str) -> None:
    state, encoder = library().state_dict(), Holding()
    path = tmp_path / f"model.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "pt":
        torch.save(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    before = encoder.own.weight.clone()
    note = initialise(encoder, str(path))
    prefix = "module." if "nested" in suffix else ""
    head, _, spare = note.partition("; these are not used: ")
    assert head == (
        f"3 of 4 weights of the net come from {path}; these stay as they were: 0.weight is [3, 5] there and [3, 2] here"
    )
    assert set(spare.split(", ")) == {f"{prefix}0.weight", f"{prefix}2.weight", f"{prefix}2.bias"}
    assert torch.equal(encoder.net[1].weight, state["1.weight"])
    assert torch.equal(encoder.own.weight, before)


def test_files_that_hold_nothing_of_use_are_refused(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "code.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name, words in (
        (
            "other.pt",
            r"nothing in .*other\.pt fits the encoder: it has other\.weight, and the encoder has net\.0\.weight",
        ),
        ("empty.pt", "holds no weights by name"),
        ("code.pt", "no file of weights that can be read"),
        ("torn.safetensors", "no file of weights that can be read"),
        ("absent.pt", "is no run, file or one of timm:NAME, torchvision:NAME, hf:NAME"),
    ):
        with pytest.raises(UserError, match=words):
            initialise(Holding(), str(tmp_path / name))


# ---- from a library


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: Exception | None = None) -> None:
    """Libraries that need no network."""
    save_file(library().state_dict(), tmp_path / "model.safetensors")

    def made(name: str, **options: Any) -> nn.Module:
        assert name == "some_net"
        assert options in ({"pretrained": True}, {"weights": "DEFAULT"})
        if fails:
            raise fails
        return library()

    def download(name: str, file: str) -> str:
        if fails:
            raise fails
        return str(tmp_path / file)

    errors = ModuleType("huggingface_hub.errors")
    errors.EntryNotFoundError = errors.LocalEntryNotFoundError = FileNotFoundError  # type: ignore[attr-defined]
    for name, module in (
        ("timm", SimpleNamespace(create_model=made)),
        ("torchvision", SimpleNamespace(models=SimpleNamespace(get_model=made))),
        ("huggingface_hub", SimpleNamespace(hf_hub_download=download)),
        ("huggingface_hub.errors", errors),
    ):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("source", ["timm:some_net", "torchvision:some_net", "hf:some_net"])
def test_a_librarys_model_fills_the_backbone(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path)
    encoder = Holding()
    note = initialise(encoder, source)
    goal = load_file(tmp_path / "model.safetensors")
    assert note.startswith(f"3 of 4 weights of the net come from {source}; these stay as they were: 0.weight")
    if source.startswith("hf"):
        assert torch.equal(encoder.net[1].bias, goal["1.bias"])
    with pytest.raises(UserError, match="'Vit' holds no model of a library, so that --init"):
        train(tmp_path / "run", init=source)


@pytest.mark.parametrize("source", ["timm:some_net", "torchvision:some_net", "hf:some_net"])
def test_what_cannot_be_had_is_one_sentence(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, OSError("no route\nto host"))
    with pytest.raises(UserError, match=f"--init {source} could not be had: OSError: no route to host; check the name"):
        initialise(Holding(), source)
    for name in ("timm", "torchvision", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UserError, match=r"which is not installed: pip install \w+"):
        initialise(Holding(), source)
    with pytest.raises(UserError, match="did you mean timm"):
        initialise(Holding(), "tim:some_net")


# ---- longer runs


INFINITE = {"schedule": "infinite", "warmup": 0.25, "cooldown": 0.25, "anneal": 0.25, "checkpoint_every": 2}


def rates(run: Path) -> list[float]:
    return [line["lr"] for line in metrics(run) if "lr" in line]


def test_an_infinite_run_is_resumed_exactly_and_made_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**INFINITE, "method": BYOL, "log_every": 1, "keep_checkpoints": 9}
    train(tmp_path / "whole", steps=8, **options)
    assert rates(tmp_path / "whole")[:4] == pytest.approx([5e-4, 1e-3, 1e-3, 0.775e-3])
    assert rates(tmp_path / "whole")[4:] == pytest.approx([0.55e-3] * 3 + [0.55e-3 * 0.1**0.5])
    stopped(monkeypatch, 5, tmp_path / "broken", steps=8, **options)
    train(tmp_path / "broken", steps=8, resume=True, **options)
    assert_same(tmp_path / "whole", tmp_path / "broken", 8)

    with pytest.raises(UserError, match=r"at step 8 .* the learning rate is 5\.5e-05 and would become 0\.00055"):
        train(tmp_path / "whole", steps=16, resume=True, **options)
    longer = tmp_path / "longer"
    shutil.copytree(tmp_path / "whole", longer)
    (longer / "checkpoints" / "step-00000008.pt").unlink()  # step 6 is the last before the annealing
    train(longer, steps=16, resume=True, **options)
    assert rates(longer)[4:13] == pytest.approx([0.55e-3] * 9)
    assert rates(longer)[-1] == pytest.approx(0.55e-3 * 0.1**0.75)
    config = load_config(longer / "config.yaml")["training"]
    assert (config["steps"], config["warmup"], config["cooldown"]) == (16, 2, 2)
    train(tmp_path / "straight", steps=16, **{**options, "warmup": 2, "cooldown": 2})
    assert rates(longer) == rates(tmp_path / "straight")


def test_shares_of_few_steps_may_be_none_and_are_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"schedule": "infinite", "warmup": 0.1, "cooldown": 0.1, "checkpoint_every": 1, "method": "mae"}
    stopped(monkeypatch, 2, tmp_path / "run", steps=3, **options)
    config = load_config(tmp_path / "run" / "config.yaml")["training"]
    assert (config["warmup"], config["cooldown"]) == (0, 0)
    train(tmp_path / "run", steps=3, resume=True, **options)
    assert (tmp_path / "run" / "encoder" / "encoder.json").exists()
    with pytest.raises(UserError, match="--warmup 0"):
        train(tmp_path / "run", steps=3, resume=True, **{**options, "warmup": 2})


def test_a_run_without_annealing_is_annealed_later(tmp_path: Path) -> None:
    options = {**INFINITE, "anneal": 0.0, "method": "mae", "log_every": 1}
    train(tmp_path / "run", steps=4, **options)
    train(tmp_path / "run", steps=8, resume=True, **{**options, "anneal": 0.5})
    assert rates(tmp_path / "run")[4:] == pytest.approx([0.55e-3 * 0.1 ** (step / 4) for step in range(4)])
    with pytest.raises(UserError, match="is at step 8, past 6: ask for more"):
        train(tmp_path / "run", steps=6, resume=True, **{**options, "anneal": 0.5})


def test_a_cosine_is_made_for_its_length(tmp_path: Path) -> None:
    train(tmp_path / "run")
    with pytest.raises(UserError, match="was made with --steps 4, not 8"):
        train(tmp_path / "run", steps=8, resume=True)


# ---- adapters


def test_adapters_change_nothing_until_they_learn_and_are_merged_into_weights(trained: Path) -> None:
    encoder, plain = load(trained), load(trained)
    tokens = encoder.tokenize({"pixels": torch.rand(5, 64)})
    goal = plain(tokens).instances
    adapt(encoder, 2)
    assert torch.equal(encoder(tokens).instances, goal)
    learned = {name for name, value in encoder.named_parameters() if value.requires_grad}
    linears = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    assert learned == {f"{name}.parametrizations.weight.0.{part}" for name in linears for part in "AB"}
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, LowRank):
                module.B.normal_(std=0.1)
    teacher = Teacher(encoder)
    follow([(teacher, encoder)], 0.9)
    one, two = merged(encoder), merged(teacher.module)
    assert isinstance(encoder.enter.parametrizations.weight[0], LowRank), "the encoder itself is as it was"
    assert not torch.allclose(encoder(tokens).instances, goal, atol=1e-3)
    for made in (one, two):
        plain.load_state_dict(made.state_dict())
        torch.testing.assert_close(plain(tokens).instances, encoder(tokens).instances, rtol=1e-4, atol=1e-5)
    weight = encoder.enter.parametrizations.weight
    naive = weight.original + sum(torch.outer(weight[0].B[:, r], weight[0].A[r]) for r in range(2))
    torch.testing.assert_close(plain.enter.weight, naive)
    assert merged(plain) is plain


def test_a_run_with_adapters_leaves_an_encoder_as_any_other(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"method": BYOL, "init": trained, "lora": 2, "lr": 1e-2, "checkpoint_every": 1, "steps": 6}
    train(tmp_path / "whole", **options)
    before, after = weights(trained), weights(tmp_path / "whole")
    assert before.keys() == after.keys()
    load(tmp_path / "whole")
    for name, value in after.items():
        change = value - before[name]
        if name.endswith("weight") and value.ndim == 2:
            assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-3) <= 2, name
        else:
            assert not change.any(), f"{name} is frozen"
    stopped(monkeypatch, 3, tmp_path / "broken", **options)
    train(tmp_path / "broken", **options, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "broken", 6)
    teacher = "teacher.module.enter.parametrizations.weight.0.B"
    assert model(tmp_path / "whole", 6)[teacher].any(), "the teacher follows the adapters"


def test_adapters_need_something_to_adapt(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--lora adapts a trained encoder: add --init"):
        train(tmp_path / "run", lora=2)

    class Conv(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv1d(1, 1, 1)

    with pytest.raises(UserError, match="encoder 'Conv' has none"):
        adapt(Conv(), 2)


def test_a_source_is_part_of_a_run(trained: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", init=trained)
    with pytest.raises(UserError, match="was made with init"):
        train(tmp_path / "run", resume=True)
    assert Config.__dataclass_fields__["init"].default == ""
