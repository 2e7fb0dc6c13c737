"""A method on an encoder: one module whose forward is the loss of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.branches import Branch, Look, Passes, Teacher, follow
from unlabeled.compose import term_needs
from unlabeled.config import Named
from unlabeled.contract import Alteration, Batch, Encoder, Kind, Reader, Tokens
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled.layers import synchronised
from unlabeled.masking import Hidden, Mask
from unlabeled.methods import Method, Part
from unlabeled.plugins import Registry, core
from unlabeled.randomness import Draws
from unlabeled.refusal import method_needs, refuse
from unlabeled.schedules import Clock, cosine
from unlabeled.terms.base import Survey, Term
from unlabeled.weights import weigher


class Objective(nn.Module):
    """Runs each view through student and teacher once and sums what the method's terms make of it.

    Raises:
        UserError: the encoder cannot do what the method needs; both are named, and a way out.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        registry: Registry,
        names: tuple[str, str] = ("", ""),
        transforms: int = 0,
    ):
        super().__init__()
        refuse(encoder, method, registry, names)
        self.method = method
        self.encoder = cast(Encoder, synchronised(encoder))
        self.branch = cast(Branch, method.teacher.name)
        options = dict(method.teacher.options)
        self.momentum, self.momentum_end = options.pop("momentum", 0.996), options.pop("end", 1.0)
        if options:
            raise UserError(f"teacher {self.branch!r} has no option {next(iter(options))!r}; there are: momentum, end")
        self.teacher = Teacher(self.encoder) if self.branch == "ema" else None
        self.mask, self.masks, self.in_place = _make_mask(method.hide, registry)
        self.blank = nn.Parameter(torch.randn(encoder.embed_width) * 0.02) if self.in_place else None
        self.terms = nn.ModuleDict()
        for number, part in enumerate(method.terms):
            options = _resolved(part, self.encoder, registry, names)
            if "transforms" in term_needs([part], registry):
                options.setdefault("transforms", transforms)
            term: Term = registry.make("term", part.name, self.encoder, **options)
            term.attach(self.branch)
            self.terms[part.name if part.name not in self.terms else f"{part.name}{number}"] = term
        self.weigh = weigher(method, list(self.terms), self.encoder)
        self.labels: Tensor | None = None  # int64 [samples of the reader], for terms that need them; see class_numbers
        self._each = tuple(cast(Term, term) for term in self.terms.values())  # a tuple is not registered again
        self._needs = method_needs(method, registry)
        self._layers = max(term.layers for term in self._each)

    def forward(
        self,
        views: Mapping[Kind, Batch],
        keys: Mapping[Kind, Tensor],
        clock: Clock,
        samples: Tensor | None = None,
        transforms: Mapping[Kind, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a micro-batch and its parts.

        Args:
            views: a batch per kind, its K views one after another.
            keys: int64 [K × B] per kind, the chance of each sample's masks.
            samples: int64 [B], numbers of the samples in the reader; for terms that look them up.
            transforms: int64 [K × B] per kind, which transform each view went through.

        Returns:
            {"loss": [], "<term>/<part>": [] ...}; the mean over ranks is the loss of the global batch.
        """
        passes = self.look(views, keys, clock, samples, transforms)
        out: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            parts = term(passes)
            losses[name] = parts.pop("loss")
            out |= {f"{name}/{part}": value.detach() for part, value in parts.items()}
            if len(self.terms) > 1:
                out[f"{name}/loss"] = losses[name].detach()
        total, moved = self.weigh(losses, clock)
        return {"loss": total, **out, **moved}

    def look(
        self,
        views: Mapping[Kind, Batch],
        keys: Mapping[Kind, Tensor],
        clock: Clock,
        samples: Tensor | None = None,
        transforms: Mapping[Kind, Tensor] | None = None,
    ) -> Passes:
        """Both branches' passes over every view."""
        student: dict[Kind, list[Look]] = {}
        teacher: dict[Kind, Look] = {}
        for kind, count in self.kinds().items():
            tokens = self.encoder.tokenize(views[kind])
            hides = self._hide(kind, tokens, keys[kind])
            student[kind] = [self._learn(count, tokens, hide) for hide in hides]
            if kind != "local":
                teacher[kind] = self._teach(count, tokens, student[kind][0])
        labels = self.labels[samples] if self.labels is not None and samples is not None else None
        embed = self.encoder.embed if self.encoder.embed_width else None
        return Passes(self.branch, student, teacher, clock, samples, labels, transforms or {}, embed)

    def count(self, kind: Kind) -> int:
        """How many views of the kind a step sees."""
        views = self.method.views
        return {"plain": views.plain, "global": views.global_, "local": views.local, "whole": 1}[kind]

    def kinds(self) -> dict[Kind, int]:
        """The kinds of view a step sees, with their counts; plain and global before local."""
        every: tuple[Kind, ...] = ("plain", "global", "local")
        return {kind: self.count(kind) for kind in every if self.count(kind)}

    def _hide(self, kind: Kind, tokens: Tokens, keys: Tensor) -> list[Hidden | None]:
        if self.mask is None or kind == "local":
            return [None]
        draws = Draws(keys).fork("mask")
        return [self.mask(tokens, draws.fork(number)) for number in range(self.masks)]

    def _learn(self, count: int, tokens: Tokens, hide: Hidden | None) -> Look:
        """The student's look. What is changed in place is changed at the encoder's mixing point, or in its content."""
        shown = tokens if hide is None or hide.values is None else replace(tokens, values=hide.values)
        if hide is None or (hide.source is None and not self.in_place):
            return Look(count, tokens, self.encoder(shown, hide.hidden if hide else None), hide)
        blank, dropped = (hide.hidden, None) if self.in_place else (None, hide.hidden)
        alter = Alteration(blank, self.blank, hide.source, hide.share, hide.across)
        return Look(count, tokens, self.encoder(shown, dropped, alter=alter), hide, self.in_place)

    def _teach(self, count: int, tokens: Tokens, student: Look) -> Look:
        """The teacher's whole look; without an EMA it is the student's own where nothing was hidden from it."""
        if self.teacher is not None:
            return Look(count, tokens, self.teacher(tokens, layers=self._layers))
        if student.hidden is None or "teacher" not in self._needs:
            return student
        with torch.set_grad_enabled(self.branch == "shared" and torch.is_grad_enabled()):
            return Look(count, tokens, self.encoder(tokens, layers=self._layers))

    def after_backward(self, clock: Clock) -> None:
        """Before the optimiser's step."""
        for term in self._each:
            term.after_backward(clock)

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        """After the optimiser's step: centres, queues and the teacher move."""
        for term in self._each:
            term.after_step(clock)
        if self.teacher is not None:
            momentum = cosine(clock.step, clock.steps, self.momentum, self.momentum_end)
            heads = [pair for term in self._each for pair in term.pairs()]
            follow([(self.teacher, self.encoder), *heads], momentum)

    def prepare(self, clock: Clock, survey: Survey) -> None:
        """Before an epoch."""
        for term in self._each:
            term.prepare(clock, survey)

    def best_encoder(self) -> Encoder:
        """The encoder that the method leaves behind: the student's, or the teacher's where its paper keeps that."""
        if self.method.keep == "teacher" and self.teacher is not None:
            return cast(Encoder, self.teacher.module)
        return self.encoder

    def needs_prepare(self) -> bool:
        """Whether any term wants a pass over the data before an epoch."""
        return any(type(term).prepare is not Term.prepare for term in self._each)


def _make_mask(hide: Part | None, registry: Registry) -> tuple[Mask | None, int, bool]:
    """The mask of a method, how many of them share a teacher's look, and whether blanks stand in for hidden tokens."""
    if hide is None:
        return None, 1, False
    options = dict(hide.options)
    masks, in_place = int(options.pop("masks", 1)), bool(options.pop("in_place", False))
    if masks < 1:
        raise UserError(f"{hide.name}.masks is how many masks a step draws: 1 or more, not {masks}")
    return registry.make("mask", hide.name, **options), masks, in_place


def _resolved(part: Part, encoder: Encoder, registry: Registry, names: tuple[str, str]) -> dict[str, Any]:
    """A term's options, with its target made: a name, a mapping with a name and options, or the domain's "default".

    Raises:
        UserError: the domain offers no target.
    """
    options = dict(part.options)
    if options.get("target") is None:
        return options
    chosen = Named.of(options["target"])
    name = chosen.name
    if name in (None, "default"):
        name = next((known for known in registry.targets if known not in core().targets), None)
        if name is None:
            raise UserError(
                f"method {names[0] or 'of your own'!r} predicts features that a domain defines and domain "
                f"{registry.domain!r} defines none; set {part.name}.target to one of: {', '.join(registry.targets)}"
            )
    return {**options, "target": registry.make("target", name, encoder, **chosen.options)}


def class_numbers(reader: Reader, spec: str, device: torch.device) -> Tensor:
    """int64 [samples]: the number of each sample's class, −1 where it has no label."""
    values = labels_of(reader, spec)
    known = np.isfinite(values) if values.dtype.kind == "f" else values != ""
    numbers = np.full(len(values), -1)
    numbers[known] = np.unique(values[known], return_inverse=True)[1]
    return torch.from_numpy(numbers).to(device)
