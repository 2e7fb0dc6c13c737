"""The core's own masks, terms and methods: an ordinary plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unlabeled.hookspecs import hookimpl

if TYPE_CHECKING:
    from unlabeled.contract import Target
    from unlabeled.masking import Mask
    from unlabeled.methods import Method
    from unlabeled.terms.base import Term


@hookimpl
def unlabeled_masks() -> Mapping[str, Callable[..., Mask]]:
    from unlabeled.corruption import CorruptMask, FuseMask, MixMask, ShuffleMask
    from unlabeled.masking import BlockMask, ContextTargets, RandomMask

    return {
        "random": RandomMask,
        "block": BlockMask,
        "context_targets": ContextTargets,
        "corrupt": CorruptMask,
        "shuffle": ShuffleMask,
        "mix": MixMask,
        "fuse": FuseMask,
    }


@hookimpl
def unlabeled_targets() -> Mapping[str, Callable[..., Target]]:
    from unlabeled.targets import Checkpoint, Values

    return {"values": Values, "checkpoint": Checkpoint}


@hookimpl
def unlabeled_terms() -> Mapping[str, Callable[..., Term]]:
    from unlabeled.terms.align import Align
    from unlabeled.terms.barlow import Barlow, MixedBarlow
    from unlabeled.terms.capri import Capri
    from unlabeled.terms.cca import CCASSG, EYCCA
    from unlabeled.terms.codes import DeepCluster, SwAV
    from unlabeled.terms.contrast import Contrast
    from unlabeled.terms.fusion import Fusion
    from unlabeled.terms.gram import Gram
    from unlabeled.terms.infonce import InfoNCE
    from unlabeled.terms.koleo import KoLeo
    from unlabeled.terms.latent import PredictLatent, RegressTokens
    from unlabeled.terms.mixture import Mixture
    from unlabeled.terms.moved import DetectMoved
    from unlabeled.terms.overlap import Overlap
    from unlabeled.terms.prototypes import IBOT, HiddenPrototypes, Prototypes
    from unlabeled.terms.quantised import Quantised
    from unlabeled.terms.rebuild import Rebuild
    from unlabeled.terms.regress import Regress
    from unlabeled.terms.sie import SIE
    from unlabeled.terms.sigreg import SIGReg
    from unlabeled.terms.supcon import SupCon
    from unlabeled.terms.token_ids import TokenIds
    from unlabeled.terms.transform import PredictTransform
    from unlabeled.terms.vicreg import VICReg

    return {
        "contrast": Contrast,
        "infonce": InfoNCE,
        "supcon": SupCon,
        "regress": Regress,
        "barlow": Barlow,
        "mixed_barlow": MixedBarlow,
        "vicreg": VICReg,
        "cca_ssg": CCASSG,
        "ey_cca": EYCCA,
        "sigreg": SIGReg,
        "swav": SwAV,
        "deepcluster": DeepCluster,
        "prototypes": Prototypes,
        "hidden_prototypes": HiddenPrototypes,
        "ibot": IBOT,
        "koleo": KoLeo,
        "quantised": Quantised,
        "rebuild": Rebuild,
        "latent": PredictLatent,
        "regress_tokens": RegressTokens,
        "token_ids": TokenIds,
        "moved": DetectMoved,
        "fusion": Fusion,
        "mixture": Mixture,
        "capri": Capri,
        "transform": PredictTransform,
        "sie": SIE,
        "gram": Gram,
        "overlap": Overlap,
        "align": Align,
    }


@hookimpl
def unlabeled_methods() -> Mapping[str, Method]:
    from unlabeled.methods import METHODS

    return METHODS
