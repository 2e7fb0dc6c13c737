"""Rows for the table of methods that the core does not have."""

from __future__ import annotations

from collections.abc import Mapping

from unlabeled.methods import Method, Views, use

METHODS: Mapping[str, Method] = {
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
