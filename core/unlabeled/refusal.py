"""What cannot work is said before the first step: which method, which encoder or view, why, and a way out."""

from __future__ import annotations

from unlabeled.compose import OF_MASKS, gives, term_needs
from unlabeled.contract import Encoder, Reader, View
from unlabeled.errors import UserError, choose, nearest
from unlabeled.methods import Method
from unlabeled.plugins import Registry

BRANCHES = ("shared", "stop_gradient", "ema")


def refuse(encoder: Encoder, method: Method, registry: Registry, names: tuple[str, str] = ("", "")) -> None:
    """Say by name what an encoder or a method's own parts cannot do.

    Args:
        names: of the method and of the encoder.

    Raises:
        UserError: the first thing that is missing.
    """
    which, what = f"method {names[0] or 'of your own'!r}", f"encoder {names[1] or type(encoder).__name__!r}"
    if method.teacher.name not in BRANCHES:
        raise UserError(
            f"{which}: no teacher is called {method.teacher.name!r}; {nearest(method.teacher.name, BRANCHES)}"
        )
    if not method.terms:
        raise UserError(f"{which} has no terms; give it at least one of: {', '.join(sorted(registry.terms))}")
    needs = method_needs(method, registry)
    if "tokens" in needs and not encoder.has_tokens:
        raise UserError(f"{which} needs tokens and {what} has none: {_way_out(encoder, registry)}")
    if "embed" in needs and not encoder.embed_width:
        raise UserError(
            f"{which} changes token embeddings and {what} has no mixing point (its embed_width is 0): "
            f"{_way_out(encoder, registry)}"
        )
    _refuse_views(method, needs, which)
    for need, why in OF_MASKS.items():
        fitting = sorted(name for name, mask in registry.masks.items() if need in gives(mask))
        if need not in needs:
            continue
        if method.hide is None:
            raise UserError(f"{which} {why} and has no mask; give it one: {', '.join(fitting)}")
        if need not in gives(choose("mask", method.hide.name, registry.masks)):
            raise UserError(f"{which} {why}, which mask {method.hide.name!r} does not give; {', '.join(fitting)} do")


def _refuse_views(method: Method, needs: set[str], which: str) -> None:
    views = method.views
    whole = views.plain + views.global_
    if min(views.plain, views.global_, views.local) < 0 or whole + views.local == 0:
        raise UserError(f"{which} sees no view of a sample; set views.plain=1 or views.global=2")
    if "views" in needs and whole + views.local < 2:
        raise UserError(f"{which} compares views and has fewer than two; set views.global=2")
    if not whole and needs & {"teacher", *OF_MASKS}:
        raise UserError(f"{which} needs more than local views; set views.global=2 or views.plain=1")
    if "transforms" in needs and not views.transform:
        raise UserError(f"{which} predicts transforms of views and transforms none; set views.transform=1")


def _way_out(encoder: Encoder, registry: Registry) -> str:
    lacks = {need for need, has in (("tokens", encoder.has_tokens), ("embed", encoder.embed_width)) if not has}
    others = [name for name, row in registry.methods.items() if not lacks & method_needs(row, registry)]
    return f"choose another encoder, or method {', '.join(others)}"


def refuse_data(
    reader: Reader, view: View, method: Method, registry: Registry, names: tuple[str, str] = ("", "")
) -> None:
    """Say by name what a reader or a view cannot do.

    Args:
        names: of the method and of the view.

    Raises:
        UserError: the method mixes samples, and the reader's are parts of one whole; or it transforms views in known
            ways, and the view knows fewer than two.
    """
    if reader.together and "mixed" in method_needs(method, registry):
        raise UserError(
            f"method {names[0] or 'of your own'!r} mixes samples, and here they are parts of one whole, which has no "
            "other to be mixed with: choose another method"
        )
    if method.views.transform and view.transforms < 2:
        raise UserError(
            f"method {names[0] or 'of your own'!r} transforms samples in known ways and view "
            f"{names[1] or type(view).__name__!r} knows none: choose another view or method"
        )


def method_needs(method: Method, registry: Registry) -> set[str]:
    """What a method asks of its encoder, mask and views; the words are those of `unlabeled.terms.base.Term.needs`."""
    needs = term_needs(method.terms, registry)
    if method.hide is None:
        return needs
    mask = choose("mask", method.hide.name, registry.masks)
    changes = method.hide.options.get("in_place") or method.hide.options.get("swap") or "hidden" not in gives(mask)
    return needs | ({"embed"} if changes or "moved" in gives(mask) else set())
