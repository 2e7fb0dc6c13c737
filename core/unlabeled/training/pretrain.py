"""From a configuration to a trained encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unlabeled import plugins
from unlabeled.collectives import rank, world
from unlabeled.config import (
    FREE_ON_RESUME,
    FREE_TO_LENGTHEN,
    Config,
    Named,
    Training,
    config_from,
    method_data,
    total_steps,
    with_training,
)
from unlabeled.contract import Encoder, Facts, Reader, View
from unlabeled.errors import UserError
from unlabeled.lora import adapt
from unlabeled.memory import keep_freed_memory
from unlabeled.methods import Method
from unlabeled.plugins import Registry
from unlabeled.schedules import Clock
from unlabeled.training.distributed import pick_device, processes
from unlabeled.training.folder import RunFolder
from unlabeled.training.initial import initialise, run_of
from unlabeled.training.loop import Outcome, Run
from unlabeled.training.optim import learning_rate


def pretrain(
    domain: str,
    data: str | Path,
    method: str | Mapping[str, Any] | Method,
    *,
    out: str | Path,
    reader: Mapping[str, Any] | str | None = None,
    view: Mapping[str, Any] | str | None = None,
    encoder: Mapping[str, Any] | str | None = None,
    init: str | Path = "",
    labels: str = "",
    resume: bool = False,
    quiet: bool = False,
    **training: Any,
) -> Outcome:
    """Pre-train an encoder; the Python twin of `unlabeled <domain> pretrain`.

    Args:
        domain: an installed domain.
        data: what the domain's reader takes.
        method: a name from `unlabeled methods`, a Method, or a mapping as in config.yaml; {"terms": ["contrast",
            "rebuild"]} is enough of one.
        out: the run's folder.
        reader, view, encoder: a name, or a mapping with options; none is the domain's default.
        init: what the encoder's weights come from: a run, a file, timm:NAME, torchvision:NAME, hf:ID; "": chance.
        labels: what the reader calls the labels, for methods that learn from them.
        resume: go on with the run in `out`.
        quiet: print nothing.
        training: fields of unlabeled.config.Training.

    Raises:
        UserError: anything that the caller can mend.
    """
    parts = {"reader": reader, "view": view, "encoder": encoder}
    plain = {"domain": domain, "data": str(data), "method": method, "training": training, "init": str(init), **parts}
    plain |= {"labels": labels, "method": method_data(method) if isinstance(method, Method) else method}
    return run(config_from(plain, plugins.load(domain)), RunFolder(out), resume=resume, quiet=quiet)


def run(config: Config, folder: RunFolder, *, resume: bool = False, quiet: bool = False) -> Outcome:
    """Start or go on with the run that a configuration describes.

    Raises:
        UserError: anything that the user can mend.
    """
    device = pick_device(config.training.device)
    if device.type == "cpu":
        keep_freed_memory()
    with processes(device):
        return _prepare(config, folder, device, resume, quiet).train()  # freed before the processes part


def _prepare(config: Config, folder: RunFolder, device: torch.device, resume: bool, quiet: bool) -> Run:
    """Everything up to the first step: data, encoder, and the checkpoint where there is one."""
    registry = plugins.load(config.domain)
    before, samples = config.training, 0
    facts: Facts | None = None
    if resume:
        before = config_from(folder.read_config(), registry).training
        config = _resumable(config, folder)
        samples, facts = folder.read_facts()
    else:
        config, facts = _inherited(config)
    reader: Reader = registry.make("reader", config.reader.name, config.data, facts=facts, **config.reader.options)
    if resume and len(reader) != samples:
        raise UserError(
            f"{config.data} has {len(reader)} samples and had {samples} when the run in {folder.path} began: "
            "restore the data, or start a new run"
        )
    config = _fitting(_named(config, registry), reader, quiet)
    encoder, view = _make(config, registry, reader)
    _start_from(encoder, config, resume and folder.last_checkpoint() is not None, quiet)
    torch.manual_seed(config.training.seed)
    prepared = Run(config, registry, reader, view, encoder, folder, device, quiet)
    if resume:
        prepared.restore()
        _lengthen(prepared, before)
    elif rank() == 0:
        folder.start(prepared.config, reader.facts, len(reader))
    _notices(reader, quiet)
    return prepared


def _inherited(config: Config) -> tuple[Config, Facts | None]:
    """The configuration with the encoder of the run that it starts from, where none is chosen, and that run's facts.

    Raises:
        UserError: the run is of another domain.
    """
    saved = run_of(config.init)
    if saved is None:
        return config, None
    if saved.domain != config.domain:
        raise UserError(f"--init {config.init} holds an encoder of domain {saved.domain!r}, not {config.domain!r}")
    return (config if config.encoder.name else replace(config, encoder=saved.encoder)), saved.facts


def _start_from(encoder: Encoder, config: Config, restored: bool, quiet: bool) -> None:
    """Give an encoder its first weights, where no checkpoint will, and its adapters."""
    if config.init and not restored:
        note = initialise(encoder, config.init)
        if not quiet and rank() == 0:
            print(f"note: {note}")
    if config.training.lora is not None:
        if not config.init:
            raise UserError("--lora adapts a trained encoder: add --init, or leave --lora out")
        adapt(encoder, config.training.lora)


def _lengthen(prepared: Run, before: Training) -> None:
    """Where a resumed run was given another length or annealing, see to it that its rate does not jump.

    Raises:
        UserError: it would, since the run was annealing; or the run is past its new end.
    """
    now, step, epoch = prepared.training, prepared.step, prepared.order.epoch_steps
    steps = total_steps(before, epoch)
    if (prepared.steps, now.anneal) == (steps, before.anneal):
        return
    if step > prepared.steps:
        raise UserError(f"the run in {prepared.folder.path} is at step {step}, past {prepared.steps}: ask for more")
    rates = learning_rate(before, Clock(step, steps, epoch)), learning_rate(now, Clock(step, prepared.steps, epoch))
    if not math.isclose(*rates, rel_tol=1e-6):
        raise UserError(
            f"at step {step} of the run in {prepared.folder.path} the learning rate is {rates[0]:.3g} and would become "
            f"{rates[1]:.3g}: go on from an earlier checkpoint, by removing the later ones from a copy of the run"
        )
    if rank() == 0:
        prepared.config.save(prepared.folder.config)


def _make(config: Config, registry: Registry, reader: Reader) -> tuple[Encoder, View]:
    torch.manual_seed(config.training.seed)  # weights depend on the seed alone, not on what a reader drew
    encoder: Encoder = registry.make("encoder", config.encoder.name, reader.facts, **config.encoder.options)
    view: View = registry.make("view", config.view.name, reader.facts, **config.view.options)
    return encoder, view


def _named(config: Config, registry: Registry) -> Config:
    """The configuration with the domain's defaults spelt out, so that config.yaml says what was used."""

    def first(named: Named, table: Mapping[str, Any]) -> Named:
        return named if named.name else replace(named, name=next(iter(table), None))

    return replace(
        config,
        reader=first(config.reader, registry.readers),
        view=first(config.view, registry.views),
        encoder=first(config.encoder, registry.encoders),
    )


def _fitting(config: Config, reader: Reader, quiet: bool) -> Config:
    """A batch no larger than the data, and all of them where they stand together; fewer than two are refused."""
    from unlabeled.data.batches import held_out

    training, _ = held_out(reader, config.training.health_samples, config.training.seed)
    wanted, parts = config.training.batch_size, config.training.accumulate * world()
    if len(training) >= wanted and not reader.together:
        return config
    fits = len(training) // parts * parts
    if fits < 2:
        samples = f"{len(reader)} sample{'s' * (len(reader) != 1)}"
        raise UserError(f"{config.data} has {samples}; pre-training needs at least 2 a step")
    if not quiet and rank() == 0 and not reader.together:
        print(f"note: {len(training)} training samples are fewer than batch size {wanted}; using {fits}")
    return with_training(config, batch_size=fits)


def _notices(reader: Reader, quiet: bool) -> None:
    for notice in getattr(reader, "notices", ()):
        if not quiet and rank() == 0:
            print(f"note: {notice}")


def _resumable(config: Config, folder: RunFolder) -> Config:
    """The configuration to go on with: the run's own, with what may change taken from the new one.

    Raises:
        UserError: something that would change the results differs.
    """
    before = folder.read_config()
    now = config.as_data()
    fixed = before["training"].get("schedule", "cosine") == "cosine"
    free = FREE_ON_RESUME if fixed else FREE_ON_RESUME | FREE_TO_LENGTHEN
    for section, value in before.items():
        new: Any = now.get(section)
        if section == "training":
            for name, old in value.items():
                if name not in free and new[name] != old and not _same(name, old, new[name]):
                    raise UserError(_differs(f"--{name.replace('_', '-')} {old}", new[name], folder))
        elif isinstance(value, dict) and section != "method":
            if Named.of(value).name != (new["name"] or Named.of(value).name):
                raise UserError(_differs(f"{section} {value['name']!r}", repr(new["name"]), folder))
            if new["name"] and _plain(value) != _plain(new):
                raise UserError(_differs(f"{section} {value}", new, folder))
        elif _plain(value) != _plain(new):
            raise UserError(_differs(f"{section} {_name(value)}", _name(new), folder))
    registry = plugins.load(config.domain)
    return with_training(config_from(before, registry), **{name: getattr(config.training, name) for name in free})


def _same(name: str, old: Any, new: Any) -> bool:
    """A batch size that the data made smaller at the start is no difference, nor a share that became steps there."""
    if name in ("warmup", "cooldown"):
        return isinstance(old, int) and bool(new < 1)  # few steps' share may be none
    return name == "batch_size" and bool(old < new)


def _plain(value: Any) -> Any:
    """As YAML would read it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _name(value: Any) -> str:
    return repr(value.get("name")) if isinstance(value, Mapping) else repr(value)


def _differs(before: str, now: Any, folder: RunFolder) -> str:
    return f"the run in {folder.path} was made with {before}, not {now}: leave it out to go on, or choose another --out"
