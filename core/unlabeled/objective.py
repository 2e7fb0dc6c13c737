"""A method on an encoder: one module whose forward is the loss of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from unlabeled.branches import Branch, Look, Passes, Teacher, follow
from unlabeled.contract import Batch, Encoder, Kind, Tokens
from unlabeled.errors import UserError, choose, nearest
from unlabeled.layers import synchronised
from unlabeled.masking import Hidden, Mask
from unlabeled.methods import Method
from unlabeled.plugins import Registry
from unlabeled.randomness import Draws
from unlabeled.schedules import Clock, cosine
from unlabeled.terms.base import EmbedAll, Term

BRANCHES = ("shared", "stop_gradient", "ema")


class Objective(nn.Module):
    """Runs each view through student and teacher once and sums what the method's terms make of it.

    Raises:
        UserError: the encoder cannot do what the method needs; both are named, and a way out.
    """

    def __init__(self, encoder: Encoder, method: Method, registry: Registry, names: tuple[str, str] = ("", "")):
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
        self.mask: Mask | None = None
        self.masks = 1
        if method.hide:
            chosen = dict(method.hide.options)
            self.masks = int(chosen.pop("masks", 1))
            if self.masks < 1:
                raise UserError(f"{method.hide.name}.masks is how many masks a step draws: 1 or more, not {self.masks}")
            self.mask = registry.make("mask", method.hide.name, **chosen)
        self.terms = nn.ModuleDict()
        for number, part in enumerate(method.terms):
            term: Term = registry.make("term", part.name, self.encoder, **part.options)
            term.attach(self.branch)
            self.terms[part.name if part.name not in self.terms else f"{part.name}{number}"] = term
        self.weights = [part.weight for part in method.terms]
        self._each = tuple(cast(Term, term) for term in self.terms.values())  # a tuple is not registered again

    def forward(self, views: Mapping[Kind, Batch], keys: Mapping[Kind, Tensor], clock: Clock) -> dict[str, Tensor]:
        """The loss of a micro-batch and its parts.

        Args:
            views: a batch per kind, its K views one after another.
            keys: int64 [K × B] per kind, the chance of each sample's masks.

        Returns:
            {"loss": [], "<term>/<part>": [] ...}; the mean over ranks is the loss of the global batch.
        """
        passes = self.look(views, keys, clock)
        out: dict[str, Tensor] = {}
        total: Tensor | None = None
        for (name, term), weight in zip(self.terms.items(), self.weights, strict=True):
            parts = term(passes)
            loss = parts.pop("loss")
            total = weight * loss if total is None else total + weight * loss
            out |= {f"{name}/{part}": value.detach() for part, value in parts.items()}
            if len(self.terms) > 1:
                out[f"{name}/loss"] = loss.detach()
        assert total is not None, "a method has terms"
        return {"loss": total, **out}

    def look(self, views: Mapping[Kind, Batch], keys: Mapping[Kind, Tensor], clock: Clock) -> Passes:
        """Both branches' passes over every view."""
        student: dict[Kind, list[Look]] = {}
        teacher: dict[Kind, Look] = {}
        for kind, count in self.kinds().items():
            tokens = self.encoder.tokenize(views[kind])
            hides = self._hide(kind, tokens, keys[kind])
            student[kind] = [
                Look(count, tokens, self.encoder(tokens, hide.hidden if hide else None), hide) for hide in hides
            ]
            if kind != "local":
                teacher[kind] = self._teach(count, tokens, student[kind][0])
        return Passes(self.branch, student, teacher, clock)

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

    def _teach(self, count: int, tokens: Tokens, student: Look) -> Look:
        """The teacher's whole look; without an EMA it is the student's own where nothing was hidden from it."""
        if self.teacher is not None:
            return Look(count, tokens, self.teacher(tokens))
        if student.hidden is None or not any("teacher" in term.needs for term in self._each):
            return student
        with torch.set_grad_enabled(self.branch == "shared" and torch.is_grad_enabled()):
            return Look(count, tokens, self.encoder(tokens))

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

    def prepare(self, clock: Clock, embed_all: EmbedAll) -> None:
        """Before an epoch."""
        for term in self._each:
            term.prepare(clock, embed_all)

    def best_encoder(self) -> Encoder:
        """The encoder that the method leaves behind: the student's, or the teacher's where its paper keeps that."""
        if self.method.keep == "teacher" and self.teacher is not None:
            return cast(Encoder, self.teacher.module)
        return self.encoder

    def needs_prepare(self) -> bool:
        """Whether any term wants a pass over the data before an epoch."""
        return any(type(term).prepare is not Term.prepare for term in self._each)


def refuse(encoder: Encoder, method: Method, registry: Registry, names: tuple[str, str] = ("", "")) -> None:
    """Say by name, before the first step, what cannot work."""
    which, what = f"method {names[0] or 'of your own'!r}", f"encoder {names[1] or type(encoder).__name__!r}"
    if method.teacher.name not in BRANCHES:
        raise UserError(
            f"{which}: no teacher is called {method.teacher.name!r}; {nearest(method.teacher.name, BRANCHES)}"
        )
    if not method.terms:
        raise UserError(f"{which} has no terms; give it at least one of: {', '.join(sorted(registry.terms))}")
    needs = method_needs(method, registry)
    if "tokens" in needs and not encoder.has_tokens:
        others = [name for name, row in registry.methods.items() if "tokens" not in method_needs(row, registry)]
        raise UserError(
            f"{which} needs tokens and {what} has none: choose another encoder, or method {', '.join(others)}"
        )
    views = method.views
    whole = views.plain + views.global_
    if min(views.plain, views.global_, views.local) < 0 or whole + views.local == 0:
        raise UserError(f"{which} sees no view of a sample; set views.plain=1 or views.global=2")
    if "views" in needs and whole + views.local < 2:
        raise UserError(f"{which} compares views and has fewer than two; set views.global=2")
    if not whole and needs & {"teacher", "hidden"}:
        raise UserError(f"{which} needs more than local views; set views.global=2 or views.plain=1")
    if "hidden" in needs and method.hide is None:
        raise UserError(
            f"{which} predicts hidden tokens and hides none; give it a mask: {', '.join(sorted(registry.masks))}"
        )


def method_needs(method: Method, registry: Registry) -> set[str]:
    """What a method asks of its encoder and views, of "instances", "tokens", "hidden", "views", "teacher"."""
    terms = [cast(type[Term], choose("term", part.name, registry.terms)) for part in method.terms]
    return {need for term in terms for need in term.needs}
