"""HTML and SVG as trees, so that whatever a user named a file or a run cannot be anything but text."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring


def node(tag: str, *inside: Element | str | None, **attributes: object) -> Element:
    """An element; `class_` is class, `stroke_width` is stroke-width, a None inside is nothing."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()})
    for one in inside:
        if isinstance(one, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + one
            else:
                made.text = (made.text or "") + one
        elif one is not None:
            made.append(one)
    return made


def table(head: list[str], rows: list[list[str | Element]], **attributes: object) -> Element:
    """A table in a box of its own, which scrolls where the page is too narrow."""
    body = [node("tr", *(node("td", cell) for cell in row)) for row in rows]
    top = node("thead", node("tr", *(node("th", name) for name in head))) if head else None
    return node("div", node("table", top, node("tbody", *body), **attributes), class_="scroll")


def document(title: str, style: str, *inside: Element | None) -> str:
    """A whole page, in text that any file can hold."""
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("title", title),
        node("style", style),
    )
    page = node("html", head, node("body", *inside), lang="en")
    text = "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
    return text.encode("utf-8", "replace").decode()  # names of files may hold what is no text
