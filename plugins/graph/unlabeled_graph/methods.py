"""Rows for the table of methods that the core does not have."""

from __future__ import annotations

from collections.abc import Mapping

from unlabeled.methods import Method, Views, use

METHODS: Mapping[str, Method] = {
    "grace": Method(
        views=Views(global_=2),
        terms=(use("contrast", temperature=0.4, norm=False),),
        paper="2006.04131",
        summary="a node's two views attract, all other nodes of both repel",
    ),
    "bgrl": Method(
        views=Views(global_=2),
        teacher=use("ema", momentum=0.99, end=1.0),
        terms=(use("regress", layers=0, norm=False, predictor_hidden=512),),
        paper="2102.06514",
        summary="predict a moving average's embedding of the other view, without projectors",
    ),
    # Without the random re-masking of the decoder, which is the paper's other half.
    "graphmae2": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.5),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(
            use("rebuild", depth=1, loss="scaled_cosine", gamma=3.0),
            use("latent", depth=1, loss="cosine"),
        ),
        training={"weight_decay": 2e-4},
        paper="2304.04779",
        summary="rebuild hidden nodes, and predict a moving average's view of them",
    ),
}
