"""What the core and a plugin agree on. The core never looks inside a sample, a batch or a context.

One alphabet for shapes: B samples, N tokens, V values, P coordinates, D width, M instances, K views or
prototypes, L layers. On most data M = B; on one big graph B = 1 and M is its number of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unlabeled.collectives import gather_uneven
from unlabeled.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from unlabeled.randomness import Draws

__all__ = [
    "Alteration",
    "Batch",
    "Content",
    "Encoded",
    "Encoder",
    "Facts",
    "Kind",
    "LibraryModel",
    "Predictor",
    "Reader",
    "Sample",
    "SquaredError",
    "Target",
    "Tokens",
    "View",
    "to_device",
]

Sample = Mapping[str, Tensor]
Batch = Mapping[str, Tensor]
Facts = Mapping[str, Any]
"""What an encoder and a view must know of the data (columns, vocabularies, statistics); plain JSON."""

Kind = Literal["plain", "global", "local", "whole"]
"""What a view is for. plain: close to the data, for rebuilding. global: augmented, most of the sample.
local: augmented, a small part. whole: undisturbed and deterministic, for embedding and evaluation."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Samples cut into places, before any weight has touched them.

    Uneven samples are padded (`valid` False) or kept flat: one row with the tokens of all samples one
    after another, and `owner` says which sample each token is of. Masks and losses take both.
    """

    values: Tensor  # [B, N, V] raw content: voxels, band powers, node features, cells; finite, 0 at padding
    coords: Tensor  # [B, N, P] in [0, 1]: depth-row-column, time-frequency, walk profile, column
    valid: Tensor  # [B, N] bool, False at padding, nodata, cells that are not there
    context: Batch  # what stays visible when a token is hidden: edges, spacing, grid shape
    owner: Tensor | None = None  # [B, N] int64, flat storage: the sample of each token; None: its row
    where: Tensor | None = None  # [B, N, P] coords in the uncut sample, where a view knows them (aligned terms)


@dataclass(frozen=True, slots=True)
class Alteration:
    """What happens to token embeddings at an encoder's mixing point; fields left None do nothing.

    It is how tokens are hidden in place (BERT's and SimMIM's blank), exchanged (VIME, GraphMAE), shuffled (ShED)
    and mixed (e-Mix), whatever the domain.
    """

    blank: Tensor | None = None  # [B, N] bool: `token` stands here instead
    token: Tensor | None = None  # [E]
    source: Tensor | None = None  # [B, N] int64: number of the token whose embedding stands here instead
    share: Tensor | None = None  # [B, N] in [0, 1]: how much of the own embedding stays beside the source's
    across: bool = False  # `source` counts the tokens of all ranks, in rank order, not of this one

    def __call__(self, x: Tensor) -> Tensor:  # [B, N, E] -> [B, N, E]
        if self.source is not None:
            own = x.flatten(0, 1)
            other = (gather_uneven(own) if self.across else own)[self.source]
            if self.share is not None:
                other = torch.lerp(other, x, self.share[..., None].to(x.dtype))
            x = other
        if self.blank is not None and self.token is not None:
            x = torch.where(self.blank[..., None], self.token.to(x.dtype), x)
        return x


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder makes of tokens. An encoder without tokens leaves `tokens` None."""

    tokens: Tensor | None  # [B, N, D] in the order of Tokens, hidden places too
    instances: Tensor  # [M, D]: a row per volume, clip, chip, table row, graph; per node on one big graph
    layers: Tensor | None = None  # [L, B, N, D]: tokens of the last L layers, oldest first, when asked for


class Content(Protocol):
    """How a token's own content is predicted and compared; for content whose loss is not the squared error."""

    width: int  # C: how many numbers a prediction has

    def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor: ...  # [B, N, C], content -> [B, N]


class Target(Protocol):
    """Fixed features of tokens, in place of their content, as what hidden ones are predicted as."""

    width: int  # C

    def __call__(self, tokens: Tokens) -> Tensor: ...  # [B, N, C], without gradient


class Predictor(nn.Module):
    """Fills wanted tokens from seen ones; knows a place only by `tokens.coords` (and edges in the context)."""

    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        """Predict [B, N, out] (read only where wanted) from latent [B, N, D]; seen, wanted: [B, N] bool."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class LibraryModel:
    """A model of another library that an encoder's weights fit: `call(**arguments)` makes it and loads `state`."""

    library: str  # as pip calls it
    call: str  # dotted: timm.create_model
    arguments: Mapping[str, Any]  # plain JSON
    state: Mapping[str, Tensor]
    input: str  # what the model takes, in words: the bands standardised [B, C, H, W]


class Encoder(nn.Module):
    """A backbone. `tokenize` cuts without weights; `forward` weighs, and decides how hidden tokens are hidden.

    A ViT drops hidden tokens, a CNN blanks voxels before its first convolution, a GNN replaces node
    features: the caller cannot tell. Nothing of `tokens.values` at a hidden or invalid place may reach
    the output (`unlabeled.testing.check_encoder` proves it).
    """

    value_width: int  # V
    coord_width: int  # P
    width: int  # D
    depth: int = 0  # how many layers' tokens can be asked for; 0: none
    has_tokens: bool = True  # False: only `instances` mean something
    embed_width: int = 0  # E, of tokens at the mixing point; 0: there is none
    content: Content | None = None  # None: squared error on tokens.values
    backbone: str = ""  # the submodule that is a timm, torchvision or Hugging Face model, for --init; "": there is none

    def tokenize(self, batch: Batch) -> Tokens:
        """Cut a batch. No weights, so that it is safe outside forward under DDP and FSDP2."""
        raise NotImplementedError

    def embed(self, tokens: Tokens) -> Tensor:
        """The mixing point [B, N, E]: what each token's own content becomes, before anything says where it stands."""
        raise NotImplementedError

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        """Encode.

        Args:
            tokens: of `tokenize`.
            hidden: [B, N] bool, what may not be seen.
            layers: also return the tokens of the last `layers` layers.
            alter: goes over `embed(tokens)`; asked only of encoders with a mixing point.
        """
        raise NotImplementedError

    def library_model(self) -> LibraryModel | None:
        """The same weights for the library that the backbone is of, where it makes the same of them; None: nowhere."""
        return None

    def predictor(self, out_width: int, width: int, depth: int) -> Predictor | None:
        """This domain's own predictor (an MLP, a GNN); None: the core's transformer over the coordinates."""
        return None


class Reader:
    """Samples on disk. Picklable; sample i is the same at every read; file libraries are imported inside.

    `facts` are fitted on these samples when the reader is made without any, and taken as they are when
    it is made with a trained encoder's facts, so that nothing is ever fitted on test data.
    """

    facts: Facts
    together: bool = False  # samples mean something only all at once (nodes of one graph): a step takes them all
    boosted: bool = False  # raw features are columns of a table, for which boosted trees are a baseline
    embed_batch: int = 512  # how many samples go through an encoder at once outside training; fewer of large ones

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        """One sample. Raises BrokenItem (or anything): the item is skipped, counted and quarantined."""
        raise NotImplementedError

    def or_none(self, index: int) -> Sample | None:
        """A sample, or None where it cannot be read: for a look at some, where another read tells of it."""
        try:
            return self[index]
        except Exception:
            return None

    def some(self, most: int) -> list[int]:
        """Up to `most` numbers of samples, evenly spread, first and last among them."""
        count = min(len(self), most)
        return [round((len(self) - 1) * at / max(count - 1, 1)) for at in range(count)]

    def name(self, index: int) -> str:
        """What identifies the sample to a person and across sessions: a path, a row number."""
        return str(index)

    def batch(self, indices: Sequence[int]) -> Batch | None:
        """Many samples at once, where that is faster than one by one; None: the core collates samples."""
        return None

    def labels(self, spec: str) -> np.ndarray[Any, Any]:
        """A label per sample, for evaluation, and for terms that ask for labels."""
        raise UserError(f"this reader has no labels, so none called {spec!r}")

    def labels_at(
        self, spec: str, index: int, places: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, np.dtype[np.str_]] | None:
        """The class at places of a sample, for dense evaluation; None: this sample has no such labels.

        Args:
            spec: where labels of places are: masks or a table beside the data, mostly.
            places: [n, P] in [0, 1] of the uncut sample, as its tokens' coordinates are.

        Returns:
            [n] names of classes, "" where nothing is known.

        Raises:
            UserError: there is nothing of that name, or it does not fit the samples.
        """
        raise UserError(f"this reader has no labels of places, so none called {spec!r}")

    def sees(self, spec: str) -> bool:
        """Whether the label is part of what an encoder is given, so that a probe of it would prove nothing."""
        return False

    def raw(self) -> np.ndarray[Any, Any] | None:
        """[len, features] float32: the data with no encoder at all, the baseline beside every number."""
        return None

    def pictures(self, batch: Batch) -> Sequence[Tensor] | None:
        """What samples, or views of them, look like: [H, W] in 0 … 1 each, for sheets and reports; None: not drawn."""
        return None

    def describe(self, index: int) -> Mapping[str, str]:
        """What a person may read of a sample, a few fields by name: the cells of a row, the size of a graph."""
        return {}

    def summary(self) -> list[dict[str, str]]:
        """What `inspect` prints: one row per column, series, band or file; every row has the same keys."""
        return [{"samples": str(len(self))}]


class View:
    """Random views of samples. Both stages draw all chance from `draws` and change nothing in place."""

    transforms: int = 0  # how many transforms of a sample `transform` knows, the identity among them; 0: none

    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        """One sample, in a loader worker, before samples become a batch: crops of uneven data."""
        return sample

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        """A whole batch at once, on the device; row i may depend on row i and draws alone.

        What a whole batch is to share, on however many ranks it lies, is drawn from `draws.shared()`.
        """
        return batch

    def transform(self, batch: Batch, which: Tensor) -> Batch:
        """The batch with transform number which[i] on row i: [B] int64 below `transforms`; 0 is the identity."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SquaredError:
    """The content loss of numbers: mean squared error a token, each token first standardised on request.

    Per-token standardisation is MAE's (arXiv 2111.06377, "norm_pix_loss"); it needs V > 1 to mean anything.
    """

    width: int
    standardise: bool = False

    def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:  # [B, N, V] -> [B, N]
        target = tokens.values.to(prediction.dtype)
        if self.standardise:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return (prediction - target).square().mean(-1)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on the device; copies from pinned memory do not wait."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
