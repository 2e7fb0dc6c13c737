"""The section of the map: samples in the plane, and some of them to look at: neighbours, outliers, duplicates."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

from unlabeled.report.map import NEIGHBOURS, Map
from unlabeled.report.markup import node, table
from unlabeled.report.runs import Shown
from unlabeled.report.scatter import MOST_BYTES, MOST_FIELDS, encoded, legend, scatter

SHOWN_AGAIN = 0.8  # of the room for pictures is the map's; the rest for those shown a second time, large


@dataclass(frozen=True)
class Album:
    """A map with names as short and pictures as large as the page has room for."""

    found: Map
    names: Sequence[str]
    pictures: Sequence[str | None]


Group = Sequence[tuple[int, str]]  # samples by their place on the map, each with a note; the first leads


def mapped(runs: Sequence[Shown], maps: Sequence[Map | str]) -> list[Element | None]:
    """The section; a map that is a sentence says why there is none."""
    head = node("h2", "Map of the embedding")
    room = int(MOST_BYTES * SHOWN_AGAIN / max(1, sum(isinstance(one, Map) for one in maps)))
    if len(runs) == 1:
        found = maps[0]
        if isinstance(found, str):
            return [head, node("p", f"No map: {found}.", class_="soft")]
        return [head, *_alone(found, room)]
    legends = [legend(found) for found in maps if isinstance(found, Map)]
    texts = {None if one is None else tostring(one) for one in legends}
    shared = legends[0] if len(texts) == 1 and len(legends) > 1 else None  # one of all where it is the same
    boxes = []
    for run, found in zip(runs, maps, strict=True):
        name = node("figcaption", run.name)
        if isinstance(found, str):
            boxes.append(node("section", node("figure", name, node("p", f"No map: {found}.", class_="soft"))))
            continue
        figures = _planes(found, encoded(found.pictures, len(found.names), room), numbered=False)
        said = [node("p", sentence, class_="soft") for sentence in _said(found)]
        boxes.append(node("section", name, None if shared is not None else legend(found), *figures, *said))
    return [head, node("div", shared, class_="shared"), node("div", *boxes, class_="map")]


def _alone(found: Map, room: int) -> list[Element | None]:
    pictures = encoded(found.pictures, len(found.names), room)
    shared = _beginning(found.names)
    album = Album(found, [name[len(shared) :] for name in found.names], pictures)
    said = [f"{len(found.names)} samples; the pointer or the arrow keys show each of them.", *_said(found)]
    parts: list[Element | None] = [node("p", sentence, class_="soft") for sentence in said]
    parts.append(node("section", legend(found), node("div", *_planes(found, pictures, numbered=True), class_="map")))
    beginning = node("p", f"All names begin with {shared}", class_="soft") if shared else None
    parts += [node("h3", "Nearest neighbours"), beginning, *_neighbours(album)]
    return parts + _apart(album) + _twins(album)


def _planes(found: Map, pictures: Sequence[str | None], numbered: bool) -> list[Element]:
    """A figure for each layout; the first one's dots say what samples are."""
    figures = []
    for place, layout in enumerate(found.layouts):
        title = node("figcaption", layout.title) if len(found.layouts) > 1 else None
        figures.append(node("figure", title, scatter(found, layout, None if place else pictures, numbered)))
    return figures


def _said(found: Map) -> list[str]:
    """Sentences under the map."""
    said, labels = list(found.said), found.labels
    if labels is None:
        return said
    if labels.seen:
        said.append(f"The encoder is given {labels.spec}, so that its colours prove nothing.")
    shared = labels.shared(found.every)
    if shared:
        share, chance = shared
        said.append(
            f"Of the {NEIGHBOURS} nearest neighbours of all samples {share:.0%} have the sample's {labels.name}; "
            f"by chance {chance:.0%}."
        )
    return said


def _neighbours(album: Album) -> list[Element | None]:
    groups, notes = [], []
    for query, others in album.found.near:
        groups.append([(query, ""), *((other, f"{cosine:.2f}") for other, cosine in others)])
        notes.append(_share(album.found, query, [other for other, _ in others]))
    said = node("p", "Samples spread over the data, and the nearest by cosine of centred embeddings.", class_="soft")
    return [said, _groups(album, groups, notes, "cosine")]


def _share(found: Map, query: int, others: Sequence[int]) -> str:
    """How many neighbours are of the query's class."""
    labels = found.labels
    if labels is None or labels.values is not None or not labels.texts[query]:
        return ""
    same = sum(labels.texts[other] == labels.texts[query] for other in others)
    return f"{same} of {len(others)} alike"


def _apart(album: Album) -> list[Element | None]:
    if not album.found.apart:
        return []
    said = "Outliers, or samples that the encoder has not learnt: by the mean cosine distance to their nearest."
    groups = [[(place, f"{distance:.2f}")] for place, distance in album.found.apart]
    return [
        node("h3", "Furthest from all others"),
        node("p", said, class_="soft"),
        _groups(album, groups, [""] * len(groups), "distance", numbered=False),
    ]


def _twins(album: Album) -> list[Element | None]:
    head = node("h3", "Duplicates")
    found = album.found.twins
    if found is None:
        return []
    if not found:
        return [head, node("p", "None among these samples.", class_="soft")]
    kinds = ["the same content" if one.exact else "nearly the same picture" for one in found]
    groups = [[(one.pair[0], ""), (one.pair[1], f"{one.cosine:.4f}")] for one in found]
    more = album.found.twins_more
    said = f"Pairs of one embedding and one content{f', and {more:,} more pairs' if more else ''}: "
    said += "samples that stand on both sides of a split make a test too easy."
    return [head, node("p", said, class_="soft"), _groups(album, groups, kinds, "cosine")]


# ---- samples as pictures, or as rows of text


def _groups(
    album: Album, groups: Sequence[Group], notes: Sequence[str], measure: str, numbered: bool = True
) -> Element:
    """Samples that belong together: cards with pictures where there are some, else rows of a table."""
    if album.found.pictures is None:
        return _rows(album, groups, notes, measure)
    boxes = []
    for place, (group, note) in enumerate(zip(groups, notes, strict=True), start=1):
        said = [(one, f"{measure} {text}" if text else "") for one, text in group]
        said[0] = (said[0][0], said[0][1] or note)
        cards = [_card(album, *one, first=len(group) > 1 and not at) for at, one in enumerate(said)]
        if not numbered:
            boxes += cards
            continue
        boxes.append(node("div", node("b", str(place)), node("div", *cards), class_="group"))
    return node("div", *boxes, class_="groups" if numbered else "apart")


def _card(album: Album, place: int, note: str, first: bool) -> Element:
    picture = album.pictures[place]
    image = node("img", src=f"data:image/png;base64,{picture}", alt="") if picture else None
    said = [note, _label(album.found, place)]
    lines = [node("span", text) for text in said if text]
    return node("div", image, album.names[place], *lines, class_="sample first" if first else "sample")


def _rows(album: Album, groups: Sequence[Group], notes: Sequence[str], measure: str) -> Element:
    """A table of what samples hold; a group is a body of its own."""
    found = album.found
    names = list(dict.fromkeys(name for group in groups for one, _ in group for name in _fields(found, one)))
    names = names[:MOST_FIELDS]
    label = [found.labels.name] if found.labels else []
    head = ["", "sample", measure, *label, *names]
    made = table(head, [], class_="rows")
    inside = made[0]
    inside.remove(inside[-1])
    for number, (group, note) in enumerate(zip(groups, notes, strict=True), start=1):
        body = []
        for at, (one, text) in enumerate(group):
            fields = _fields(found, one)
            told = [found.labels.texts[one] + (f" ({note})" if note and not at else "")] if found.labels else []
            if not label and note and not at:
                text = note
            lead = str(number) if not at else ""
            cells = [lead, album.names[one], text, *told, *(fields.get(name, "") for name in names)]
            first = {"class": "first"} if len(group) > 1 and not at else {}
            body.append(node("tr", *(node("td", cell) for cell in cells), **first))
        if len(group) > 1 or len(inside) == 1:
            inside.append(node("tbody"))
        inside[-1].extend(body)
    return made


def _fields(found: Map, place: int) -> dict[str, str]:
    return dict(found.fields[place]) if found.fields else {}


def _label(found: Map, place: int) -> str:
    return f"{found.labels.name} {found.labels.texts[place] or 'none'}" if found.labels else ""


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with, up to the end of a folder."""
    start = os.path.commonprefix(list(names))  # noqa: RUF071  # by letters: not all names are paths
    begin = re.match(r"(.*[/:\\])?", start, re.DOTALL)
    return begin[0] if begin and begin[0] else ""
