"""2 and 3 ranks, each with its part of a batch, against 1 rank with the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from toy import Survey, ToyEncoder, keys, method, views
from unlabeled.collectives import (
    batch_mean,
    batch_moments,
    gather,
    masked_mean,
    mean_over_ranks,
    rank,
    sum_over_ranks,
    world,
)
from unlabeled.contract import Batch, Kind
from unlabeled.layers import BatchNorm
from unlabeled.methods import METHODS, Method, Part, Views, use
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.schedules import Clock

SAMPLES = 12
ROWS = {
    **{name: method(name) for name in sorted(METHODS)},
    "simclr of three views": method("simclr", views__global=3),
    "vicreg of three views": method("vicreg", views__local=1),
    "swav with a queue": method("swav", swav__queue=30),
    "byol without a teacher": Method(Views(global_=2), (use("regress", hidden=32, out=16),)),
    "ijepa without a teacher": Method(Views(plain=1), (use("latent", depth=1),), METHODS["ijepa"].hide, Part("shared")),
    "several": Method(
        Views(global_=2),
        (use("contrast", 0.5, out=8), use("rebuild", depth=1), use("latent", depth=1), use("vicreg", 0.1, hidden=8)),
        use("block", ratio=0.6, masks=2),
        Part("ema"),
    ),
    "several, solved for": Method(
        Views(global_=2),
        (use("contrast", out=8), use("rebuild", depth=1), use("vicreg", hidden=8)),
        use("block", ratio=0.6),
        weights="pareto_unit",
    ),
}
STEPS = 2
GRADIENTS = [f"gradient {step}" for step in range(STEPS)]


def share(x: Tensor, count: int, place: int, ranks: int) -> Tensor:
    """One rank's rows of a batch of `count` views, one after another."""
    return x.unflatten(0, (count, ranks, -1))[:, place].flatten(0, 1)


def run(name: str, place: int = 0, ranks: int = 1) -> dict[str, Tensor]:
    """Two steps of a method on one rank's part: losses, averaged gradients, and all state after them."""
    row = ROWS[name]
    torch.manual_seed(2)
    made = Objective(ToyEncoder(norm=True), row, core(), transforms=2).train()
    weights = {key: weight for key, weight in made.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.SGD(weights.values(), 0.05)
    out: dict[str, Tensor] = {}
    for step in range(STEPS):
        whole = views(row, SAMPLES, seed=step)
        part: Mapping[Kind, Batch] = {
            kind: {key: share(x, made.count(kind), place, ranks) for key, x in batch.items()}
            for kind, batch in whole.items()
        }
        own = {kind: share(key, made.count(kind), place, ranks) for kind, key in keys(whole, seed=step).items()}
        clock = Clock(step, 10, 1)
        numbers = torch.arange(SAMPLES).chunk(ranks)[place]
        made.labels = torch.arange(SAMPLES) % 3
        if made.needs_prepare():  # every rank looks at all samples
            made.prepare(clock, Survey(made, whole))
        which = {kind: key % 2 for kind, key in own.items()} if row.views.transform else None
        loss = made(part, own, clock, numbers, which)["loss"]
        optimizer.zero_grad()
        loss.backward()
        made.after_backward(clock)
        out[f"loss {step}"] = _average(loss.detach(), ranks)
        with_grad = {key: weight for key, weight in weights.items() if weight.grad is not None}
        for key in weights.keys() - with_grad.keys():  # instances are normed, and a method of tokens does not use them
            assert key.startswith("encoder.norm")
        grads = [weight.grad for weight in with_grad.values()]
        together = _average(torch.cat([grad.flatten() for grad in grads]), ranks)  # what DDP does, in one bucket
        parts = together.split([grad.numel() for grad in grads])
        for (key, weight), part in zip(with_grad.items(), parts, strict=True):
            weight.grad = part.view_as(weight).clone()
            out[f"gradient {step} {key}"] = weight.grad.clone()
        optimizer.step()
        made.after_step(clock)
    return out | {f"state {key}": value.detach().clone() for key, value in made.state_dict().items()}


def _average(x: Tensor, ranks: int) -> Tensor:
    x = x.clone()
    if ranks > 1:
        dist.all_reduce(x)
    return x / ranks


def parts(place: int = 0, ranks: int = 1) -> dict[str, Tensor]:
    """Every collective, and batch norm over uneven numbers of rows, on one rank's part of fixed numbers."""
    chance = torch.Generator().manual_seed(2)
    x = torch.randn(SAMPLES, 5, 3, generator=chance)
    weigh = torch.randn(SAMPLES, 5, 3, generator=chance)
    keep = torch.rand(SAMPLES, 5, generator=chance) < torch.linspace(0, 1, SAMPLES)[:, None]
    mine = x.chunk(ranks)[place].clone().requires_grad_()
    near, kept = weigh.chunk(ranks)[place], keep.chunk(ranks)[place]
    out: dict[str, Tensor] = {}

    def note(name: str, value: Tensor, loss: Tensor) -> None:
        (grad,) = torch.autograd.grad(loss, mine)
        out[name], out[f"gradient of {name}"] = value.detach(), _together(grad / ranks, ranks)

    mean, var = batch_moments(mine)
    note("moments", torch.stack([mean, var]), (mean * weigh[0] + var**2 * weigh[1]).sum())
    note("mean", batch_mean(mine), (batch_mean(mine) ** 3 * weigh[0]).sum())
    loss = masked_mean((mine**2).mean(-1), kept)
    note("masked mean", _average(loss.detach(), ranks), loss)
    loss = (gather(mine) ** 2).sum((1, 2)).logsumexp(0) + (mine * near).mean()
    note("gather", gather(mine), loss)
    turned = gather(mine.transpose(0, 1), dim=1).transpose(0, 1)
    note("gather along 1", turned, (turned**3 * weigh).sum())
    loss = (sum_over_ranks(mine.sum(0)) ** 2 * weigh[0]).sum()
    note("sum", sum_over_ranks(mine.sum(0)), loss)
    loss = (mean_over_ranks(mine.mean(0)) ** 2 * weigh[0]).sum()
    note("mean over ranks", mean_over_ranks(mine.mean(0)), loss)

    for shape in ("rows", "images", "kept tokens", "cumulative"):
        norm = BatchNorm(3, momentum=None if shape == "cumulative" else 0.1)
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
        for _ in range(2):  # kept tokens: an uneven number of rows on each rank, none on some
            z = (
                mine[kept]
                if shape == "kept tokens"
                else mine.transpose(1, 2)[..., 0 if shape == "rows" else slice(None)]
            )
            y = norm(z)
        near_z = (
            near[kept] if shape == "kept tokens" else near.transpose(1, 2)[..., 0 if shape == "rows" else slice(None)]
        )
        loss = (y**2 * near_z).sum() * ranks  # the mean over ranks is the sum over all rows
        note(f"norm of {shape}", _together(y.detach(), ranks), loss)
        out |= {f"norm of {shape}: {key}": value.clone() for key, value in norm.state_dict().items()}
        grads = torch.autograd.grad((norm(z) ** 2 * near_z).sum() * ranks, list(norm.parameters()))
        out |= {f"norm of {shape}: gradient {i}": _average(grad, ranks) for i, grad in enumerate(grads)}
    return out


def _together(x: Tensor, ranks: int) -> Tensor:
    """Every rank's rows, however many, in order."""
    if ranks == 1:
        return x
    every: list[Any] = [None] * ranks
    dist.all_gather_object(every, x.tolist())
    return torch.cat([torch.tensor(rows).reshape(-1, *x.shape[1:]) for rows in every])


def work(place: int, folder: str) -> None:
    """One process: first as one of 3 ranks, then, the last one aside, as one of 2."""
    torch.set_num_threads(1)
    for ranks in (3, 2):
        if place < ranks:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet{ranks}", rank=place, world_size=ranks)
            assert (rank(), world()) == (place, ranks)
            results = {name: run(name, place, ranks) for name in ROWS} | {"parts": parts(place, ranks)}
            torch.save(results, f"{folder}/{ranks}-{place}.pt")
            dist.barrier()
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, dict[str, Tensor]]]:
    """What every rank of 3 and of 2 found; one start of processes for all of this file."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder),), nprocs=3)
    return {(ranks, place): torch.load(folder / f"{ranks}-{place}.pt") for ranks in (2, 3) for place in range(ranks)}


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", ROWS)
def test_ranks_together_are_one(results: Any, name: str, ranks: int) -> None:
    goal = run(name)
    steps = {step: max(float(x.abs().max()) for key, x in goal.items() if key.startswith(step)) for step in GRADIENTS}
    for place in range(ranks):
        found = results[ranks, place][name]
        assert found.keys() == goal.keys()
        for key, value in goal.items():
            # Some gradients cancel to nothing (of a scale before a batch norm): noise, on the scale of the others.
            scale = steps.get(key[: len(GRADIENTS[0])], 1.0)
            torch.testing.assert_close(
                found[key], value, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("ranks", [2, 3])
def test_collectives_and_batch_norm(results: Any, ranks: int) -> None:
    goal = parts()
    for place in range(ranks):
        found = results[ranks, place]["parts"]
        assert found.keys() == goal.keys()
        for key, value in goal.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_batch_norm_agrees_with_torchs_on_kept_tokens() -> None:
    found = parts()
    theirs = nn.BatchNorm1d(3)
    nn.init.normal_(theirs.weight, generator=torch.Generator().manual_seed(3))
    chance = torch.Generator().manual_seed(2)
    x = torch.randn(SAMPLES, 5, 3, generator=chance)
    torch.randn(SAMPLES, 5, 3, generator=chance)
    keep = torch.rand(SAMPLES, 5, generator=chance) < torch.linspace(0, 1, SAMPLES)[:, None]
    theirs(x[keep]), theirs(x[keep])
    torch.testing.assert_close(found["norm of kept tokens: running_var"], theirs.running_var)


def test_in_one_process_everything_is_the_identity() -> None:
    assert (rank(), world()) == (0, 1)
    x = torch.randn(4, 3)
    assert sum_over_ranks(x) is x
    assert mean_over_ranks(x) is x
    assert gather(x) is x
    torch.testing.assert_close(batch_moments(x), (x.mean(0), x.var(0, correction=0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_masked_mean(dtype: torch.dtype) -> None:
    values, keep = torch.ones(60, 50, dtype=dtype), torch.rand(60, 50) < 0.7
    values[~keep] = torch.nan
    assert masked_mean(values, keep).item() == pytest.approx(1, rel=5e-3)
    assert masked_mean(values, keep).dtype == dtype
    assert masked_mean(values, keep & False).item() == 0
