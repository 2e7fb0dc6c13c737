"""What a row of the table of methods says: its parts with their options, its views, and how options are replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

from unlabeled.errors import UserError, nearest

Number = TypeVar("Number", int, float)
Weight = float | Mapping[str, Any]
"""Of a term in the sum: a number, or a way from one to another over the run, {start: 0, end: 1, from: 0.1}."""
Weights = Literal["fixed", "pareto", "pareto_unit"]
"""Each term's own, or solved for at every step (see unlabeled.weights.Pareto)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One named choice with its options: a term, a mask or a teacher."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: Weight = 1.0


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of each kind a step sees of a sample."""

    plain: int = 0
    global_: int = 0
    local: int = 0
    transform: bool = False  # each is also turned in one of the view's known ways, which terms are told


@dataclass(frozen=True, slots=True)
class Method:
    """A self-supervised method: views → branches → hidden tokens → terms → weights."""

    views: Views
    terms: tuple[Part, ...]
    hide: Part | None = None  # what the student may not see; besides the mask's own options there are "masks", how
    # many masks share a teacher pass, and "in_place", whether hidden tokens stay as blanks that the encoder fills
    teacher: Part = Part("shared")  # "shared", "stop_gradient" or "ema" (momentum, end)
    weights: Weights = "fixed"
    keep: str = "student"  # which branch's encoder a run leaves behind: "student" or "teacher"
    training: Mapping[str, Any] = field(default_factory=dict)  # defaults for unlabeled.config.Training
    paper: str = ""
    summary: str = ""

    def with_options(self, options: Mapping[str, Any]) -> Method:
        """The method with options replaced: {"contrast.temperature": 0.5, "random.ratio": 0.6, "barlow.weight": 2}.

        A target's own options go by one more name: {"rebuild.target": "hog", "rebuild.target.cell": 4}.
        """
        method = self
        for key, value in options.items():
            part, dot, option = key.partition(".")
            if not dot:
                raise UserError(f"cannot set {key!r}; write part.option=value, as in {self.terms[0].name}.weight=0.5")
            method = method._with_option(part, option, value)
        return method

    def _with_option(self, part: str, option: str, value: Any) -> Method:
        def changed(one: Part) -> Part:
            if one.name != part:
                return one
            if option == "weight" and one in self.terms:
                return replace(one, weight=value if isinstance(value, Mapping) else _number(float, part, option, value))
            name, dot, inner = option.partition(".")
            if dot and name == "target" and name in one.options:
                held = one.options[name]
                target = {**(held if isinstance(held, Mapping) else {"name": held}), inner: value}
                return replace(one, options={**one.options, name: target})
            return replace(one, options={**one.options, option: value})

        names = [term.name for term in self.terms] + [self.teacher.name] + ([self.hide.name] if self.hide else [])
        if part == "views":
            counts = asdict(self.views)
            name = "global_" if option == "global" else option
            if name not in counts:
                raise UserError(f"views has no {option!r}; there are: plain, global, local, transform")
            count = _number(int, part, option, value)
            changed_views: dict[str, Any] = {name: bool(count) if name == "transform" else count}
            return replace(self, views=replace(self.views, **changed_views))
        if part not in names:
            raise UserError(f"this method has no part {part!r}; {nearest(part, [*names, 'views'])}")
        hide = changed(self.hide) if self.hide else None
        return replace(self, terms=tuple(map(changed, self.terms)), teacher=changed(self.teacher), hide=hide)


def _number(kind: type[Number], part: str, option: str, value: Any) -> Number:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise UserError(f"{part}.{option} is a number, not {value!r}") from None


def use(name: str, weight: Weight = 1.0, **options: Any) -> Part:
    """A part of a row: `use("contrast", temperature=0.2)`."""
    return Part(name, options, weight)
