"""Methods composed of terms: parts from text or plain data, and what is left out from what the terms need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import yaml

from unlabeled.errors import UserError, choose, nearest
from unlabeled.rows import Method, Part, Views, Weights

if TYPE_CHECKING:
    from unlabeled.plugins import Registry

OF_MASKS = {
    "hidden": "predicts hidden tokens",
    "moved": "detects tokens that were changed",
    "mixed": "works on mixed samples",
    "fused": "tells how much of another sample a token shows",
}
"""What terms may need that a mask gives, by what it is for."""


def value_of(text: str) -> Any:
    """A value as YAML reads it, but 1e-3 is a number and a list is a tuple."""
    value = yaml.safe_load(text)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def options_of(text: str) -> dict[str, Any]:
    """`ratio=0.6,scale=[0.1,0.2],weight={start: 0, end: 1}` as a mapping.

    Raises:
        UserError: an option has no value.
    """
    options = {}
    for pair in re.split(r",(?![^\[{]*[\]}])", text):  # not at a comma inside brackets
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"options are name=value with commas between, and {pair.strip()!r} in {text!r} is not")
        options[name.strip()] = value_of(value)
    return options


def part_from(data: Any) -> Part:
    """A term, mask or teacher from `name`, `name:option=value,...` or {name: ..., option: value, weight: 0.5}.

    Raises:
        UserError: it has no name, or an option no value.
    """
    if isinstance(data, str):
        name, colon, rest = data.partition(":")
        data = {**(options_of(rest) if colon else {}), "name": name.strip()}
    if not isinstance(data, Mapping) or not data.get("name"):
        raise UserError(f"a term, mask or teacher is a name or a mapping with one, not {data!r}")
    options: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in data.items()}
    name, weight = str(options.pop("name")), options.pop("weight", 1.0)
    if isinstance(weight, Mapping):
        return Part(name, options, weight)
    try:
        return Part(name, options, float(weight))
    except (TypeError, ValueError):
        raise UserError(f"{name}.weight is a number, not {weight!r}") from None


def parts_from(data: Any) -> tuple[Part, ...]:
    """Several of them, from a list; one alone may stand without."""
    several = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    return tuple(part_from(one) for one in several)


def views_from(data: Any) -> Views:
    """Views from `global=2,local=4` or a mapping of kinds to counts.

    Raises:
        UserError: there is no such kind, or its count is no number.
    """
    counts = options_of(data) if isinstance(data, str) else dict(data)
    known = [name.rstrip("_") for name in asdict(Views())]
    for kind, count in counts.items():
        if kind not in known:
            raise UserError(f"views has no {kind!r}; {nearest(kind, known)}")
        if not isinstance(count, int):
            raise UserError(f"views.{kind} is a number, not {count!r}")
    given = {("global_" if kind == "global" else kind): count for kind, count in counts.items()}
    return Views(**{**given, "transform": bool(given.get("transform"))})


CHOICES: dict[str, Callable[[Any], Any]] = {
    "views": views_from,
    "hide": part_from,
    "teacher": part_from,
    "weights": lambda name: choose("way to weigh terms", name, {name: name for name in get_args(Weights)}),
    "keep": lambda name: choose("branch", name, {"student": "student", "teacher": "teacher"}),
}
"""How each of a method's choices is read, the terms apart."""


def composed(base: Method, given: Mapping[str, Any], added: tuple[Part, ...], registry: Registry) -> Method:
    """A method with choices replaced and terms added; what neither it nor the given says is what its terms need.

    Views: two global ones where terms compare views, or look at instances from which nothing is hidden; else one
    plain one. Hidden tokens: the first mask that gives what the terms predict (`random`, `corrupt` or `mix` of the
    core's). Teacher, where the added terms want one and the base had no use for it: that of the first row of the table
    with such a term, or a moving average.

    Raises:
        UserError: there is no such term or choice, with the nearest names.
    """
    changes = {name: read(given[name]) for name, read in CHOICES.items() if given.get(name) is not None}
    method = replace(base, terms=base.terms + added, **changes)
    needs, before = term_needs(method.terms, registry), term_needs(base.terms, registry)
    if method.hide is None and needs & OF_MASKS.keys():
        fitting = [name for name, mask in registry.masks.items() if needs & OF_MASKS.keys() <= gives(mask)]
        method = replace(method, hide=Part(fitting[0]) if fitting else None)
    if "views" not in changes:
        method = replace(method, views=_views(method, needs))
    if "teacher" not in changes and "teacher" in needs - before and method.teacher.name == "shared":
        method = replace(method, teacher=_teacher(added, registry))
    return method


def _views(method: Method, needs: set[str]) -> Views:
    transform = method.views.transform or "transforms" in needs
    if method.views != Views():
        return replace(method.views, transform=transform)
    pairs = "views" in needs or ("instances" in needs and method.hide is None and not transform)
    return Views(global_=2, transform=transform) if pairs else Views(plain=1, transform=transform)


def _teacher(terms: Sequence[Part], registry: Registry) -> Part:
    wanting = [part.name for part in terms if "teacher" in term_needs([part], registry)]
    rows: list[Method] = list(registry.methods.values())
    found = (row.teacher for name in wanting for row in rows if name in [part.name for part in row.terms])
    return next(found, Part("ema"))


def term_needs(terms: Sequence[Part], registry: Registry) -> set[str]:
    """What terms ask of an encoder, a mask and views, in the words of `unlabeled.terms.base.Term.needs`."""
    made: list[Any] = [choose("term", part.name, registry.terms) for part in terms]
    return {need for term in made for need in term.needs}


def gives(mask: Any) -> frozenset[str]:
    """What terms may build on with a mask, in the words of `unlabeled.masking.Mask.gives`."""
    given: frozenset[str] = getattr(mask, "gives", frozenset({"hidden"}))
    return given
