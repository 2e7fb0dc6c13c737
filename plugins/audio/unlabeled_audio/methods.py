"""Methods of sound by the names of their papers; rows of the core's choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unlabeled.methods import METHODS as CORE
from unlabeled.methods import Method, Views, use

ATST = replace(
    CORE["byol"],
    teacher=use("ema", momentum=0.99, end=1.0),
    keep="teacher",
    paper="2204.12076",
    summary="predict a moving average's embedding of another segment",
)

METHODS: Mapping[str, Method] = {
    "atst": ATST,  # its first name, before there was atst_frame
    "atst_clip": ATST,
    "byol_a": replace(
        CORE["byol"],
        teacher=use("ema", momentum=0.99, end=0.99),
        paper="2103.06695",
        summary="byol on log-mels with a background, cropped and resized",
    ),
    "audio_mae": replace(
        CORE["mae"],
        hide=use("random", ratio=0.8),
        paper="2207.06405",
        summary="rebuild hidden patches of the log-mel",
    ),
    "eat": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.8, size=0.1, inverse=True, masks=16),
        teacher=use("ema", momentum=0.9998, end=0.99999),
        terms=(use("latent", loss="mse", layers=8, summary=1.0),),
        keep="teacher",
        paper="2401.03497",
        summary="data2vec on log-mel patches, sixteen masks a pass and the clip's mean",
    ),
    # In the paper codes are of a trained codec, or clusters of log-mels and chroma; here books of cepstra.
    "mert": replace(
        CORE["hubert"],
        terms=(
            use("token_ids", target="mfcc", codes=300, books=2),
            use("rebuild", depth=0, target="cqt"),
        ),
        paper="2306.00107",
        summary="hubert with several codebooks, and the constant-Q transform of blanked frames",
    ),
    # In the paper codes are of other encoders' features: --set token_ids.target=checkpoint and .target.run=RUN.
    "spear": replace(
        CORE["hubert"],
        terms=(use("token_ids", target="mfcc", codes=256, books=8),),
        paper="2510.25955",
        summary="predict many codebooks of blanked frames' features",
    ),
    "ssast": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.6, size=0.05, in_place=True),
        terms=(
            use("capri", target="values", within=True),
            use("rebuild", weight=10.0, depth=0),
        ),
        paper="2110.09784",
        summary="find blanked patches among their clip's, and rebuild them",
    ),
}
