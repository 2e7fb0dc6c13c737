"""Rows for the table of methods that the core does not have."""

from __future__ import annotations

from collections.abc import Mapping

from unlabeled.methods import Method, Views, use

METHODS: Mapping[str, Method] = {
    # Of four turns in the paper; here of those that a volume's spacing allows.
    "swin_unetr": Method(
        views=Views(global_=2, transform=True),
        hide=use("block", ratio=0.3, size=0.1, in_place=True),
        terms=(use("transform"), use("contrast", temperature=0.5), use("rebuild", depth=0, loss="l1")),
        paper="2111.14791",
        summary="say how a crop was turned, tell crops apart, paint what was cut out",
    ),
    "models_genesis": Method(
        views=Views(plain=1),
        hide=use("distort"),
        terms=(use("rebuild", depth=0),),
        paper="1908.06912",
        summary="undo a random curve, shuffled voxels and painted windows",
    ),
}
