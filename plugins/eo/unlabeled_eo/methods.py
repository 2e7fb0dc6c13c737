"""Methods of Earth observation by the names of their papers; rows of the core's choices."""

from __future__ import annotations

from collections.abc import Mapping

from unlabeled.methods import Method, Views, use

METHODS: Mapping[str, Method] = {
    "sar_jepa": Method(
        views=Views(plain=1),
        hide=use("local_window", window=0.25, ratio=0.8, masks=4),
        terms=(use("rebuild", target="sar_gradient"),),
        training={"weight_decay": 0.05, "beta2": 0.95},
        paper="2311.15153",
        summary="predict gradients that speckle does not disturb, in local windows",
    ),
    "saratr_x": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.75),
        terms=(use("rebuild", target="sar_gradient"),),
        training={"weight_decay": 0.05, "beta2": 0.95},
        paper="2405.09365",
        summary="predict such gradients of hidden patches from the seen ones",
    ),
    "croma": Method(
        views=Views(plain=1, global_=2),
        hide=use("random", ratio=0.75),
        terms=(use("contrast", temperature=0.07), use("rebuild", standardise=True)),
        training={"weight_decay": 0.01},
        paper="2311.00566",
        summary="two sensors' views attract, and hidden patches are rebuilt",
    ),
}
