"""A tiny encoder, small batches, and slow arithmetic to compare the core with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from unlabeled.branches import Branch, Look, Passes
from unlabeled.contract import Alteration, Batch, Encoded, Encoder, Kind, Tokens
from unlabeled.layers import Place, Trunk, mean_of
from unlabeled.methods import METHODS, Method
from unlabeled.objective import Objective
from unlabeled.randomness import sample_keys
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term

CLOCK = Clock(step=3, steps=100, epoch_steps=10)

SMALL: dict[str, dict[str, object]] = {
    "simclr": {"contrast.out": 16},
    "moco_v2": {"infonce.queue": 16, "infonce.out": 16},
    "moco_v3": {"infonce.out": 16},
    "nnclr": {"infonce.neighbours": 16, "infonce.out": 16},
    "scarf": {"infonce.out": 16},
    "supcon": {"supcon.out": 16},
    "cca_ssg": {},
    "ey_cca": {"ey_cca.hidden": 32, "ey_cca.out": 16},
    "byol": {"regress.hidden": 32, "regress.out": 16},
    "simsiam": {"regress.hidden": 32, "regress.out": 16, "regress.predictor_hidden": 8},
    "directpred": {"regress.hidden": 32, "regress.out": 16},
    "barlow": {"barlow.hidden": 32, "barlow.out": 16},
    "mixed_barlow": {"mixed_barlow.hidden": 32, "mixed_barlow.out": 16},
    "vicreg": {"vicreg.hidden": 32, "vicreg.out": 16},
    "dino": {"prototypes.prototypes": 32, "prototypes.hidden": 32, "prototypes.bottleneck": 16, "views.local": 2},
    "lejepa": {"sigreg.hidden": 32, "sigreg.out": 8, "sigreg.slices": 64, "views.local": 2},
    "swav": {"swav.prototypes": 6, "swav.out": 16, "views.local": 2},
    "deepcluster_v2": {"deepcluster.clusters": 3, "deepcluster.out": 16, "views.local": 2},
    "ibot": {"ibot.prototypes": 32, "ibot.hidden": 32, "ibot.bottleneck": 16, "views.local": 2},
    "dinov2": {
        "prototypes.prototypes": 32,
        "prototypes.hidden": 32,
        "prototypes.bottleneck": 16,
        "hidden_prototypes.prototypes": 32,
        "hidden_prototypes.hidden": 32,
        "hidden_prototypes.bottleneck": 16,
        "views.local": 2,
    },
    "mae": {"rebuild.depth": 1},
    "simmim": {},
    "gmml": {},
    "maskfeat": {"rebuild.target": "values"},
    "hubert": {"token_ids.target": "values", "token_ids.codes": 8, "token_ids.out": 16},
    "wav2vec2": {"quantised.codes": 8, "quantised.code_width": 8, "quantised.out": 8, "quantised.distractors": 4},
    "graphmae": {},
    "ijepa": {"latent.depth": 1},
    "rotation": {},
    "sie": {"sie.hidden": 16, "sie.out": 8},
    "vime": {},
    "emix": {"mixture.out": 16},
    "volume_fusion": {},
    "voco": {"overlap.hidden": 32, "overlap.out": 16, "views.local": 2},
    "alice": {
        "align.out": 16,
        "prototypes.prototypes": 32,
        "prototypes.hidden": 32,
        "prototypes.bottleneck": 16,
    },
    "shed": {},
    "capri": {},
    "tjepa": {"latent.depth": 1},
    "data2vec": {"latent.depth": 1, "block.masks": 2},
    "atst_frame": {"regress_tokens.hidden": 128, "regress_tokens.out": 16},
}
"""Options that make the paper's methods small enough for a test."""


class ToyEncoder(Encoder):
    """A transformer over the tokens of {"x": [B, N, V], "valid": [B, N], "coords": [B, N, P]}; the latter optional."""

    def __init__(self, values: int = 3, width: int = 16, *, norm: bool = False, has_tokens: bool = True):
        super().__init__()
        self.value_width, self.coord_width, self.width, self.depth, self.embed_width = values, 1, width, 1, width
        self.has_tokens = has_tokens
        self.enter, self.place, self.trunk = nn.Linear(values, width), Place(1, width), Trunk(width, 1)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.calls = 0

    def tokenize(self, batch: Batch) -> Tokens:
        x = batch["x"]
        B, N, _ = x.shape
        valid = batch.get("valid", torch.ones(B, N, dtype=torch.bool))
        coords = batch.get("coords", torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1))
        return Tokens(x * valid[..., None], coords, valid, {})

    def embed(self, tokens: Tokens) -> Tensor:
        return self.enter(tokens.values)

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        self.calls += 1
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x, kept = self.trunk(x + self.place(tokens.coords), keep, tokens.owner, layers)
        instances = self.norm(mean_of(x, keep))
        return Encoded(x if self.has_tokens else None, instances, torch.stack(kept) if layers else None)


def method(name: str, **options: object) -> Method:
    """A row of the table, small; `rebuild__depth=2` sets rebuild.depth."""
    return METHODS[name].with_options(SMALL[name] | {key.replace("__", "."): to for key, to in options.items()})


def views(row: Method, samples: int = 6, tokens: int = 9, noise: float = 0.3, seed: int = 0) -> dict[Kind, Batch]:
    """Noisy views of one fixed batch with uneven numbers of valid tokens; local views have half of the tokens."""
    chance = torch.Generator().manual_seed(seed)
    base = torch.randn(samples, tokens, 3, generator=chance)
    valid = torch.arange(tokens) < tokens - torch.arange(samples)[:, None] % 4
    out: dict[Kind, Batch] = {}
    counts: dict[Kind, int] = {"plain": row.views.plain, "global": row.views.global_, "local": row.views.local}
    for kind, count in counts.items():
        if count:
            seen = slice(tokens // 2) if kind == "local" else slice(None)
            x = torch.cat([base + noise * torch.randn(base.shape, generator=chance) for _ in range(count)])
            out[kind] = {"x": x[:, seen], "valid": valid.repeat(count, 1)[:, seen]}
    return out


def keys(batches: Mapping[Kind, Batch], seed: int = 0) -> dict[Kind, Tensor]:
    """A key per row of every view."""
    return {kind: sample_keys(seed, 0, torch.arange(len(batch["x"]))) for kind, batch in batches.items()}


class Survey:
    """A pass over the samples of some views: the first plain or global view of each."""

    def __init__(self, made: Objective, batches: Mapping[Kind, Batch]):
        self.encoder, kind = made.encoder, next(iter(batches))
        count = made.count(kind)
        self.batch = {name: x[: len(x) // count] for name, x in batches[kind].items()}

    def tokens(self, samples: int) -> Iterator[Tokens]:
        yield self.encoder.tokenize(self.batch)

    @torch.no_grad()
    def instances(self) -> Tensor:
        training = self.encoder.training
        out: Tensor = self.encoder.eval()(self.encoder.tokenize(self.batch)).instances
        self.encoder.train(training)
        return out


def forward(made: Objective, batches: Mapping[Kind, Batch], clock: Clock = CLOCK, seed: int = 0) -> dict[str, Tensor]:
    """The loss of a step with all that any row may ask for: a pass before an epoch, labels, numbers, transforms."""
    kind = next(iter(batches))
    samples = torch.arange(len(batches[kind]["x"]) // made.count(kind))
    made.labels = samples % 3
    if made.needs_prepare() and clock.step % clock.epoch_steps == 0:
        made.prepare(clock, Survey(made, batches))
    which = {kind: torch.arange(len(batch["x"])) % 2 for kind, batch in batches.items()}
    return made(batches, keys(batches, seed), clock, samples, which if made.method.views.transform else None)


def look(instances: Tensor) -> Look:
    """A pass that made these instances [K, M, D], and of which nothing else matters."""
    nothing = torch.zeros(len(instances.flatten(0, 1)), 1, 1)
    return Look(
        len(instances), Tokens(nothing, nothing, nothing[..., 0] == 0, {}), Encoded(None, instances.flatten(0, 1))
    )


def passes(
    student: Mapping[Kind, Tensor],
    branch: Branch = "shared",
    teacher: Mapping[Kind, Tensor] | None = None,
    clock: Clock = CLOCK,
) -> Passes:
    """Passes over instances [K, M, D] a kind; without a teacher's own, the teacher is the student."""
    looks = {kind: [look(z)] for kind, z in student.items()}
    whole = (
        {kind: look(z) for kind, z in teacher.items()}
        if teacher
        else {k: v[0] for k, v in looks.items() if k != "local"}
    )
    return Passes(branch, looks, whole, clock)


def slow(layers: nn.Sequential, x: Tensor) -> Tensor:
    """A head, layer by layer and row by row, from the definitions."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            rows = [(layer.weight * row).sum(1) for row in x]
            x = torch.stack(rows) if layer.bias is None else torch.stack(rows) + layer.bias
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            mean = sum(x) / len(x)
            var = sum((row - mean) ** 2 for row in x) / len(x)
            x = (x - mean) / (var + layer.eps).sqrt()
            x = x * layer.weight + layer.bias if layer.affine else x
        elif isinstance(layer, nn.ReLU):
            x = x * (x > 0)
        else:
            assert isinstance(layer, nn.GELU)
            x = x * (1 + torch.erf(x / 2**0.5)) / 2
    return x


def unit(x: Tensor) -> Tensor:
    """A vector divided by its length."""
    return x / x.square().sum().sqrt()


def compare(
    term: Term,
    inputs: Sequence[Tensor],
    loss: Callable[[Term, Sequence[Tensor]], Tensor],
    naive: Callable[[Term, Sequence[Tensor]], Tensor],
    rtol: float = 2e-4,
) -> None:
    """Value and gradients, to the inputs and to every weight, of the loss and of a naive one in float64."""
    exact = copy.deepcopy(term).double()
    value, grads = _grads(term, [x.detach().clone() for x in inputs], loss)
    expected, goals = _grads(exact, [x.detach().double() for x in inputs], naive)
    torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=1e-6)
    largest = max(float(goal.abs().max()) for goal in goals.values())
    for name, goal in goals.items():  # some cancel to nothing (of a bias before a norm): noise, on the others' scale
        scale = max(float(goal.abs().max()), 1e-2 * largest, 1e-3)
        torch.testing.assert_close(
            grads[name].double(), goal, rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any(goal.abs().max() > 1e-4 for goal in goals.values())


def _grads(
    term: Term, inputs: list[Tensor], loss: Callable[[Term, Sequence[Tensor]], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    inputs = [x.requires_grad_() for x in inputs]
    leaves = {f"input {i}": x for i, x in enumerate(inputs)}
    leaves |= {name: weight for name, weight in term.named_parameters() if weight.requires_grad}
    value = loss(term, inputs)
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), grads, strict=True)
    return value.detach(), {name: torch.zeros_like(x) if grad is None else grad for (name, x), grad in pairs}
