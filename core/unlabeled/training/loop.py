"""The loop. It reads from top to bottom; what happens in a step stands in `Run.one_step`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.collectives import batch_mean, rank, world
from unlabeled.config import Config, total_steps
from unlabeled.contract import Encoder, Facts, Reader, View
from unlabeled.data.batches import Batches, Order, Step, close, finish, held_out, loader
from unlabeled.data.quarantine import Quarantine
from unlabeled.embedding import Sweep
from unlabeled.errors import UserError
from unlabeled.lora import merged
from unlabeled.objective import Objective, class_numbers
from unlabeled.plugins import Registry
from unlabeled.precision import autocast
from unlabeled.refusal import method_needs, refuse_data
from unlabeled.report.samples import Source
from unlabeled.report.write import write_at_end
from unlabeled.saved import encoder_folder, save_encoder
from unlabeled.schedules import Clock
from unlabeled.seen import read_ids, sample_ids
from unlabeled.training import checkpoint
from unlabeled.training.distributed import all_ranks, any_rank, wrap
from unlabeled.training.folder import RunFolder
from unlabeled.training.health import Alarm
from unlabeled.training.optim import in_steps, make_optimizer, set_rates
from unlabeled.training.progress import Progress
from unlabeled.training.signals import Stopper
from unlabeled.training.watch import Sources, Watch

PATIENCE = 5  # steps in a row whose gradient is not finite, after which a run stops


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    steps: int
    signal: int = 0  # the number of the signal that stopped it, or 0
    alarms: tuple[str, ...] = ()


class Run:
    """One run in progress: everything that moves, and how it is saved and restored."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        reader: Reader,
        view: View,
        encoder: Encoder,
        folder: RunFolder,
        device: torch.device,
        quiet: bool = False,
    ):
        self.registry, self.reader, self.view = registry, reader, view
        self.folder, self.device = folder, device
        given = config.training
        training, self.held_out = held_out(reader, given.health_samples, given.seed)
        self.order = Order(training, given.batch_size, given.seed, given.accumulate, world(), rank())
        self.steps = total_steps(given, self.order.epoch_steps)
        self.training = in_steps(given, self.steps)
        self.config = replace(config, training=self.training)
        names = (config.method_name, config.encoder.name or "")
        refuse_data(reader, view, config.method, registry, (names[0], config.view.name or ""))
        self.objective = Objective(encoder, config.method, registry, names, view.transforms)
        self.objective.labels = _labels(config, registry, reader, device)
        self.objective.to(device).train()
        self.module: nn.Module = wrap(self.objective)
        if self.training.compile:
            self.objective.encoder.compile()
        self.optimizer = make_optimizer(self.objective, self.training)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.step = 0
        self.alarm = Alarm()
        self.meter = Meter(device)
        self.streak = torch.zeros((), device=device)  # steps in a row without a finite gradient
        self._one = torch.ones((), device=device)
        self.quarantine = Quarantine(folder.quarantine, len(reader), self.training.max_broken)
        self.quiet = quiet
        share = max(2, self.order.batch_size // world())
        sources = Sources(reader, view, registry, device, share)
        watched = (self.training.watch, self.training.watch_samples, self.training.seed)
        self.watch = Watch.of(sources, self.held_out, *watched)
        self.watching = 0.0  # seconds

    # ---- the loop

    def train(self) -> Outcome:
        """Train to the end, a signal or an error; whatever happens, what was saved stays whole."""
        progress = Progress(self.steps, self.step, self.training.batch_size, self.quiet)
        board = self._board()
        every_check = self.training.checkpoint_every or max(1, math.ceil(self.steps / 10))
        trained = self.steps * self.order.batch_size * sum(self.objective.kinds().values())
        every_health = self.training.health_every or math.ceil(self.steps / self.watch.looks(trained))
        self.every_full = every_health * self.watch.every(math.ceil(self.steps / every_health), trained)
        began = time.perf_counter()
        micro_batches = self._micro_batches()
        with Stopper() as stopper:
            try:
                if self.step == 0:
                    self._look_at_health(progress)
                while self.step < self.steps:
                    self.one_step(micro_batches)
                    progress.step(self.step)
                    last = self.step == self.steps
                    if last or self.step % self.training.log_every == 0:
                        self._log(progress, board)
                        self._check_finite()
                    elif self.device.type == "cpu":
                        self._check_finite()
                    if last or self.step % every_health == 0:
                        self._look_at_health(progress)
                    stop = self._asked(stopper)
                    if last or stop or (self.step % every_check == 0 and not float(self.streak)):
                        self.save()  # in a streak of broken steps the last checkpoint is the better one
                    if stop:
                        break
            finally:
                close(micro_batches)
                progress.close()
                if board:
                    board.close()
        progress.say(f"watching took {self.watching / (time.perf_counter() - began):.1%} of the time")
        if rank() == 0:
            self._save_encoder()
            source = Source(self.objective.best_encoder(), self.reader, self.view, self.registry, self.device)
            write_at_end(self.folder, source, progress.say)
        asked = stopper.asked if self.step < self.steps else 0
        return Outcome(self.step, self.steps, asked, tuple(self.alarm.spoken))

    def one_step(self, micro_batches: Iterator[Step]) -> None:
        """Forward and backward over the micro-batches, one optimiser step, then state and teacher move."""
        clock = Clock(self.step, self.steps, self.order.epoch_steps)
        if self.step % self.order.epoch_steps == 0 and self.objective.needs_prepare():
            sources = (self.reader, self.view, self.registry, self.order.samples, self.device)
            self.objective.prepare(clock, Sweep(self.objective.encoder, *sources))
        rate = set_rates(self.optimizer, self.training, clock)
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(self.training.accumulate):
            batch = self._take(micro_batches)
            last = part == self.training.accumulate - 1
            later = nullcontext() if last or world() == 1 else self.module.no_sync()  # type: ignore[operator]
            with later:
                with autocast(self.training.precision, self.device):
                    out = self.module(batch.views, batch.keys, clock, batch.samples, batch.transforms)
                (out["loss"] / self.training.accumulate).backward()
            self.meter.add(out)
        self.objective.after_backward(clock)
        self._descend()
        self.objective.after_step(clock)
        self.meter.rate = rate
        self.step += 1

    def _descend(self) -> None:
        """Clip and step; a gradient that is not finite skips the step on the device, with nobody waiting."""
        grads = [grad for grad in [p.grad for p in self.parameters] if grad is not None]
        broken = torch.zeros((), device=self.device)
        if self.training.clip is not None:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_mul_(grads, (self.training.clip / (norm + 1e-6)).clamp(max=1.0))
        # the check of torch's own GradScaler: one pass, a third of what the norm costs on small models
        torch._amp_foreach_non_finite_check_and_unscale_(grads, broken, self._one)
        self.streak = (self.streak + 1) * broken
        self.meter.broken.append(broken)
        self.optimizer.found_inf = broken  # type: ignore[attr-defined]  # read by fused AdamW and by our LARS
        self.optimizer.step()

    def _take(self, micro_batches: Iterator[Step]) -> Step:
        try:
            step = next(micro_batches)
        except UserError as error:  # from a worker it comes with the worker's traceback around it
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None
        if step.broken:
            self.quarantine.add(step.broken)
        if self.device.type == "cpu":
            return step
        return finish(step.to(self.device), self.view, self.config.method.views.transform)

    def _micro_batches(self) -> Iterator[Step]:
        on_device = self.device.type != "cpu"
        kinds, transform = self.objective.kinds(), self.config.method.views.transform
        batches = Batches(self.reader, self.view, kinds, self.order, self.registry, on_device, transform)
        parts = self.training.accumulate
        return iter(loader(batches, self.step * parts, self.steps * parts, self.training.workers, on_device))

    # ---- what is watched

    def _log(self, progress: Progress, board: Any) -> None:
        values = self.meter.take()
        timing = progress.log(self.step, values)
        if rank() == 0:
            self.folder.log({"step": self.step, "epoch": (self.step - 1) // self.order.epoch_steps, **values, **timing})
            if board:
                for name, value in values.items():
                    board.add_scalar(name, value, self.step)
        self._warn(self.alarm.hear(values, self.step), progress)

    def _check_finite(self) -> None:
        if float(self.streak) < PATIENCE:
            return
        good = self.folder.last_checkpoint()
        raise UserError(
            f"the gradient was not finite for {PATIENCE} steps in a row, up to step {self.step}, and the run stopped; "
            + (f"the last good checkpoint is {good}" if good else "there is no checkpoint yet")
            + "; lower --lr, set --clip 1 or use --precision fp32"
        )

    def _look_at_health(self, progress: Progress) -> None:
        """Embed the held-out samples; at the run's begin and end, and now and then, look closer."""
        began = time.perf_counter()
        encoder = self.objective.encoder.eval()
        health = self.watch.short(encoder)
        closer = self.step in (0, self.steps) or self.step % self.every_full == 0
        more = self.watch.full(encoder) if health and closer else {}
        self.objective.train()
        self.watching += time.perf_counter() - began
        if not health:
            return
        if rank() == 0:
            good = {f"health/{name}": value for name, value in {**health, **more}.items() if math.isfinite(value)}
            self.folder.log({"step": self.step, **good})
        self._warn(self.alarm.look({name: health[name] for name in ("std", "rank", "dead")}, self.step), progress)

    def _warn(self, sentence: str | None, progress: Progress) -> None:
        if sentence:
            progress.say(f"warning: {sentence}")
            if self.training.on_collapse == "stop":
                raise UserError(f"{sentence}; the run stopped as --on-collapse stop asks")

    def _asked(self, stopper: Stopper) -> bool:
        """Whether to stop; ranks agree at each line of the log, since signals reach them at different steps."""
        if world() == 1:
            return bool(stopper.asked)
        return self.step % self.training.log_every == 0 and any_rank(bool(stopper.asked))

    def _board(self) -> Any:
        if not self.training.tensorboard or rank() != 0:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("--tensorboard needs the tensorboard package: pip install tensorboard") from None
        return SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.step)  # type: ignore[no-untyped-call]

    # ---- what is saved

    def save(self) -> None:
        """Write a checkpoint: after it, the run goes on as if it had never stopped."""
        generators = all_ranks(_generators(self.device))
        if rank() == 0:
            state = {
                "model": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generators": generators,
                "meter": self.meter.state(),
                "alarm": self.alarm.state(),
                "streak": self.streak,
                "world": world(),
            }
            checkpoint.save(self.folder.checkpoints, self.step, state, self.training.keep_checkpoints)

    def restore(self) -> None:
        """Go back to the newest checkpoint, if there is one; what was logged after it is taken again."""
        path = self.folder.last_checkpoint()
        state = checkpoint.load(path) if path else None
        if state is not None:
            try:
                self.objective.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
            except (RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"checkpoint {path} is of another encoder or method: {str(error).splitlines()[0]}"
                ) from None
            self.step = state["step"]
            self.meter.restore(state["meter"])
            self.alarm.restore(state["alarm"])
            self.streak = state["streak"].to(self.device)
            if state["world"] == world():
                _set_generators(state["generators"][rank()], self.device)
        if rank() == 0:
            self.folder.rewind(self.step if state is not None else -1)

    def _save_encoder(self) -> None:
        facts: Facts = self.reader.facts
        seen = sample_ids(self.reader, self.config.data, self.order.samples.tolist())
        if self.config.init and Path(self.config.init).is_dir():  # what that run learnt from is in these weights too
            seen = np.concatenate([seen, read_ids(encoder_folder(self.config.init))])
        save_encoder(self.folder.encoder, merged(self.objective.best_encoder()), self.config, facts, self.step, seen)


def _labels(config: Config, registry: Registry, reader: Reader, device: torch.device) -> Tensor | None:
    """Class numbers, for a method that learns from labels.

    Raises:
        UserError: none are named, or the encoder would see them.
    """
    if "labels" not in method_needs(config.method, registry):
        return None
    if not config.labels:
        raise UserError(f"method {config.method_name!r} learns from labels: say which with --labels COLUMN")
    if reader.sees(config.labels):
        raise UserError(
            f"method {config.method_name!r} learns from {config.labels!r}, which the encoder sees: "
            f"leave it out of the inputs (--exclude {config.labels})"
        )
    return class_numbers(reader, config.labels, device)


class Meter:
    """Metrics between two lines of the log: one small tensor a micro-batch, fetched and averaged once a line."""

    def __init__(self, device: torch.device):
        self.device = device
        self.names: list[str] = []
        self.lines: list[Tensor] = []
        self.broken: list[Tensor] = []
        self.rate = 0.0

    def add(self, out: dict[str, Tensor]) -> None:
        """A micro-batch's metrics."""
        self.names = list(out)
        self.lines.append(torch.stack([value.detach() for value in out.values()]))

    def take(self) -> dict[str, float]:
        """The means of what was finite, over ranks too; then start again."""
        lines = torch.stack(self.lines)
        good = lines.isfinite()
        means = batch_mean((torch.where(good, lines, 0).sum(0) / good.sum(0))[None]).tolist()
        values = {name: value for name, value in zip(self.names, means, strict=True) if math.isfinite(value)}
        skipped = int(torch.stack(self.broken).sum())
        self.lines, self.broken = [], []
        return {**values, "lr": self.rate, **({"skipped": skipped} if skipped else {})}

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"names": self.names, "lines": list(self.lines), "broken": list(self.broken)}

    def restore(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.names = list(state["names"])
        self.lines = [line.to(self.device) for line in state["lines"]]
        self.broken = [flag.to(self.device) for flag in state["broken"]]


def _generators(device: torch.device) -> dict[str, Tensor]:
    """torch's own generators: dropout draws from them."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
