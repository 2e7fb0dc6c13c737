"""The table of methods: each is its five choices, in a few lines, and its paper.

Rows are plain data (names and options), so that a method can be written in Python, in config.yaml or on the
command line, and a run's folder holds the method whole. Options left out are the term's own defaults, which
are the paper's, with head widths in proportion to the encoder's (the paper's 8192 on a ResNet-50 is 4 × width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

from unlabeled.errors import UserError, nearest

__all__ = ["METHODS", "Method", "Part", "Views", "use"]

Number = TypeVar("Number", int, float)
Weight = float | Mapping[str, Any]
"""Of a term in the sum: a number, or a way from one to another over the run, {start: 0, end: 1, from: 0.1}."""
Weights = Literal["fixed", "pareto", "pareto_unit"]
"""Each term's own, or solved for at every step (see unlabeled.weights.Pareto)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One named choice with its options: a term, a mask or a teacher."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: Weight = 1.0


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of each kind a step sees of a sample."""

    plain: int = 0
    global_: int = 0
    local: int = 0
    transform: bool = False  # each is also turned in one of the view's known ways, which terms are told


@dataclass(frozen=True, slots=True)
class Method:
    """A self-supervised method: views → branches → hidden tokens → terms → weights."""

    views: Views
    terms: tuple[Part, ...]
    hide: Part | None = None  # what the student may not see; besides the mask's own options there are "masks", how
    # many masks share a teacher pass, and "in_place", whether hidden tokens stay as blanks that the encoder fills
    teacher: Part = Part("shared")  # "shared", "stop_gradient" or "ema" (momentum, end)
    weights: Weights = "fixed"
    keep: str = "student"  # which branch's encoder a run leaves behind: "student" or "teacher"
    training: Mapping[str, Any] = field(default_factory=dict)  # defaults for unlabeled.config.Training
    paper: str = ""
    summary: str = ""

    def with_options(self, options: Mapping[str, Any]) -> Method:
        """The method with options replaced: {"contrast.temperature": 0.5, "random.ratio": 0.6, "barlow.weight": 2}.

        A target's own options go by one more name: {"rebuild.target": "hog", "rebuild.target.cell": 4}.
        """
        method = self
        for key, value in options.items():
            part, dot, option = key.partition(".")
            if not dot:
                raise UserError(f"cannot set {key!r}; write part.option=value, as in {self.terms[0].name}.weight=0.5")
            method = method._with_option(part, option, value)
        return method

    def _with_option(self, part: str, option: str, value: Any) -> Method:
        def changed(one: Part) -> Part:
            if one.name != part:
                return one
            if option == "weight" and one in self.terms:
                return replace(one, weight=value if isinstance(value, Mapping) else _number(float, part, option, value))
            name, dot, inner = option.partition(".")
            if dot and name == "target" and name in one.options:
                held = one.options[name]
                target = {**(held if isinstance(held, Mapping) else {"name": held}), inner: value}
                return replace(one, options={**one.options, name: target})
            return replace(one, options={**one.options, option: value})

        names = [term.name for term in self.terms] + [self.teacher.name] + ([self.hide.name] if self.hide else [])
        if part == "views":
            counts = asdict(self.views)
            name = "global_" if option == "global" else option
            if name not in counts:
                raise UserError(f"views has no {option!r}; there are: plain, global, local, transform")
            count = _number(int, part, option, value)
            changed_views: dict[str, Any] = {name: bool(count) if name == "transform" else count}
            return replace(self, views=replace(self.views, **changed_views))
        if part not in names:
            raise UserError(f"this method has no part {part!r}; {nearest(part, [*names, 'views'])}")
        hide = changed(self.hide) if self.hide else None
        return replace(self, terms=tuple(map(changed, self.terms)), teacher=changed(self.teacher), hide=hide)


def _number(kind: type[Number], part: str, option: str, value: Any) -> Number:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise UserError(f"{part}.{option} is a number, not {value!r}") from None


def use(name: str, weight: Weight = 1.0, **options: Any) -> Part:
    """A part of a row: `use("contrast", temperature=0.2)`."""
    return Part(name, options, weight)


DEEP: Mapping[str, Any] = {"layers": 3, "out": 256, "end_norm": True}  # projectors of MoCo v3 and NNCLR
METHODS: dict[str, Method] = {
    "simclr": Method(
        views=Views(global_=2),
        terms=(use("contrast", temperature=0.1),),
        paper="2002.05709",
        summary="two views attract, the rest of the batch repels",
    ),
    "moco_v2": Method(
        views=Views(global_=2),
        teacher=use("ema", momentum=0.999, end=0.999),
        terms=(use("infonce", temperature=0.2, queue=65536, norm=False),),
        paper="2003.04297",
        summary="a moving average's key of the other view against a queue of keys",
    ),
    "moco_v3": Method(
        views=Views(global_=2),
        teacher=use("ema", momentum=0.99, end=1.0),
        terms=(use("infonce", predictor=True, scaled=True, expand=2, predictor_norm=True, **DEEP),),
        paper="2104.02057",
        summary="predict a moving average's key of the other view among the batch's",
    ),
    "nnclr": Method(
        views=Views(global_=2),
        teacher=use("stop_gradient"),
        terms=(use("infonce", temperature=0.1, neighbours=98304, predictor=True, **DEEP),),
        paper="2104.14548",
        summary="attract the nearest neighbour of the other view",
    ),
    "scarf": Method(
        views=Views(plain=1),
        hide=use("corrupt", ratio=0.6),
        terms=(use("infonce", temperature=1.0, norm=False, out=256),),
        paper="2106.15147",
        summary="a corrupted sample finds its clean self in the batch",
    ),
    "supcon": Method(
        views=Views(global_=2),
        terms=(use("supcon", temperature=0.1),),
        paper="2004.11362",
        summary="samples of one class attract, where labels are known",
    ),
    "byol": Method(
        views=Views(global_=2),
        teacher=use("ema", momentum=0.99, end=1.0),
        terms=(use("regress"),),
        paper="2006.07733",
        summary="predict a moving average's embedding of the other view",
    ),
    "simsiam": Method(
        views=Views(global_=2),
        teacher=use("stop_gradient"),
        terms=(use("regress", layers=3, end_norm=True),),
        paper="2011.10566",
        summary="predict the other view's embedding, held still",
    ),
    "directpred": Method(
        views=Views(global_=2),
        teacher=use("ema", momentum=0.99, end=1.0),
        terms=(use("regress", direct=True),),
        paper="2102.06810",
        summary="byol whose linear predictor follows from its inputs' correlation",
    ),
    "barlow": Method(
        views=Views(global_=2),
        terms=(use("barlow", off_weight=5e-3),),
        paper="2103.03230",
        summary="cross-correlation of two views becomes the identity",
    ),
    "mixed_barlow": Method(
        views=Views(global_=2),
        hide=use("mix"),
        terms=(use("mixed_barlow", off_weight=5e-3, mixed_weight=1.0),),
        paper="2312.02151",
        summary="barlow, and mixed samples lie between the samples they are made of",
    ),
    "vicreg": Method(
        views=Views(global_=2),
        terms=(use("vicreg"),),
        paper="2105.04906",
        summary="views agree, dimensions vary and do not repeat each other",
    ),
    "cca_ssg": Method(
        views=Views(global_=2),
        terms=(use("cca_ssg", off_weight=1e-3),),
        paper="2106.12484",
        summary="views correlate, dimensions do not",
    ),
    "ey_cca": Method(
        views=Views(global_=2),
        terms=(use("ey_cca"),),
        paper="2310.01012",
        summary="canonical correlation without constraints, by Eckart and Young",
    ),
    "lejepa": Method(
        views=Views(global_=2, local=6),
        terms=(use("sigreg"),),
        paper="2511.08544",
        summary="views predict their centre, embeddings stay an isotropic Gaussian",
    ),
    "swav": Method(
        views=Views(global_=2, local=6),
        terms=(use("swav"),),
        paper="2006.09882",
        summary="predict another view's cluster among balanced ones",
    ),
    "deepcluster_v2": Method(
        views=Views(global_=2, local=6),
        terms=(use("deepcluster"),),
        paper="2006.09882",
        summary="predict the sample's k-means cluster, found anew each epoch",
    ),
    "dino": Method(
        views=Views(global_=2, local=6),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("prototypes"),),
        keep="teacher",
        training={"weight_decay": 0.04, "weight_decay_end": 0.4, "clip": 3.0},
        paper="2104.14294",
        summary="local views match a moving average's prototypes of global ones",
    ),
    "mae": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.75),
        terms=(use("rebuild", standardise=True),),
        training={"weight_decay": 0.05, "beta2": 0.95},
        paper="2111.06377",
        summary="rebuild hidden tokens from the seen ones",
    ),
    "simmim": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.6, in_place=True),
        terms=(use("rebuild", depth=0, loss="l1"),),
        paper="2111.09886",
        summary="rebuild blanked tokens by a linear head",
    ),
    "gmml": Method(
        views=Views(plain=1),
        hide=use("block", ratio=(0.1, 0.7), size=0.1, swap=1.0),
        terms=(use("rebuild", depth=0, loss="l1"),),
        paper="2205.14986",
        summary="rebuild groups of tokens that show another sample's content",
    ),
    "maskfeat": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.4, size=0.1, in_place=True),
        terms=(use("rebuild", depth=0, target="default"),),
        paper="2112.09133",
        summary="predict the domain's features of blanked tokens",
    ),
    "graphmae": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.5, swap=0.05),
        terms=(use("rebuild", depth=1, loss="scaled_cosine", gamma=3.0),),
        training={"weight_decay": 2e-4},
        paper="2205.10803",
        summary="rebuild hidden tokens, re-hidden before the decoder, by scaled cosine",
    ),
    "ijepa": Method(
        views=Views(plain=1),
        hide=use("context_targets", targets=4, scale=(0.15, 0.2), context=(0.85, 1.0), aspect=1.5),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("latent"),),
        keep="teacher",
        training={"weight_decay": 0.04, "weight_decay_end": 0.4},
        paper="2301.08243",
        summary="predict a moving average's tokens of hidden blocks",
    ),
    "rotation": Method(
        views=Views(plain=1, transform=True),
        terms=(use("transform"),),
        paper="1803.07728",
        summary="say in which of the known ways a sample was turned",
    ),
    "sie": Method(
        views=Views(global_=2, transform=True),
        terms=(use("sie"),),
        paper="2302.10283",
        summary="half invariant, half following the known transform",
    ),
    "vime": Method(
        views=Views(plain=1),
        hide=use("corrupt", ratio=0.3),
        terms=(use("moved"), use("rebuild", weight=2.0, everywhere=True)),
        paper="VIME, NeurIPS 2020",
        summary="say which cells were exchanged, and what they held",
    ),
    "emix": Method(
        views=Views(plain=1),
        hide=use("mix", own=True),
        terms=(use("mixture"),),
        paper="2111.12062",
        summary="find both parts of a mixture of token embeddings",
    ),
    "volume_fusion": Method(
        views=Views(plain=1),
        hide=use("fuse"),
        terms=(use("fusion"),),
        paper="2306.16925",
        summary="say how much of another sample each token shows",
    ),
    "voco": Method(
        views=Views(global_=2, local=4),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("overlap"),),
        paper="2402.17300",
        summary="similarity of two crops is the share that they have in common",
    ),
    "alice": Method(
        views=Views(global_=2),
        hide=use("block", ratio=0.3, size=0.1, in_place=True),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("align"), use("prototypes"), use("rebuild", depth=0, loss="l1")),
        keep="teacher",
        paper="2302.05615",
        summary="tokens predict the same place of another sample, beside DINO and SimMIM",
    ),
    "shed": Method(
        views=Views(plain=1),
        hide=use("shuffle", ratio=0.15),
        terms=(use("moved"),),
        paper="2111.12062",
        summary="say which token embeddings changed places",
    ),
    "capri": Method(
        views=Views(plain=1),
        hide=use("random", ratio=0.5, in_place=True),
        terms=(use("capri"),),
        paper="DABS 2.0, 2023",
        summary="find a blanked token's embedding among all blanked ones",
    ),
    "tjepa": Method(
        views=Views(plain=1),
        hide=use("context_targets", targets=4, scale=(0.2, 0.4), context=(0.2, 0.4), shape="scattered"),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("latent", loss="mse"),),
        keep="teacher",
        paper="2410.05016",
        summary="predict a moving average's tokens of scattered places",
    ),
    "data2vec": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.8, size=0.05, inverse=True, masks=8),
        teacher=use("ema", momentum=0.999, end=1.0),
        terms=(use("latent", loss="mse", layers=8, summary=1.0),),
        keep="teacher",
        paper="2212.07525",
        summary="predict the mean of a moving average's layers, many masks a pass",
    ),
    "hubert": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.55, size=0.02, in_place=True),
        terms=(use("token_ids", target="default"),),
        paper="2106.07447",
        summary="predict the cluster of blanked tokens' features",
    ),
    "wav2vec2": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.49, size=0.02, in_place=True),
        terms=(use("quantised"),),
        paper="2006.11477",
        summary="find a blanked token's quantised embedding among its sample's others",
    ),
    "atst_frame": Method(
        views=Views(plain=1),
        hide=use("block", ratio=0.65, size=0.02, in_place=True),
        teacher=use("ema", momentum=0.997, end=1.0),
        terms=(use("regress_tokens"),),
        keep="teacher",
        paper="2306.04186",
        summary="predict a moving average's frames of blanked blocks by cosine",
    ),
    "ibot": Method(
        views=Views(global_=2, local=6),
        hide=use("block", ratio=(0.1, 0.5), size=0.1, samples=0.5, in_place=True),
        teacher=use("ema", momentum=0.996, end=1.0),
        terms=(use("ibot"),),
        keep="teacher",
        training={"weight_decay": 0.04, "weight_decay_end": 0.4, "clip": 3.0},
        paper="2111.07832",
        summary="DINO, and the same for blanked tokens, on one head",
    ),
    "dinov2": Method(
        views=Views(global_=2, local=6),
        hide=use("block", ratio=(0.1, 0.5), size=0.1, samples=0.5, in_place=True),
        teacher=use("ema", momentum=0.994, end=1.0),
        terms=(
            use("prototypes", centring="sinkhorn"),
            use("hidden_prototypes", centring="sinkhorn"),
            use("koleo", weight=0.1),
        ),
        keep="teacher",
        training={"weight_decay": 0.04, "weight_decay_end": 0.4, "clip": 3.0},
        paper="2304.07193",
        summary="DINO and iBOT on heads of their own, balanced, and spread by KoLeo",
    ),
}
