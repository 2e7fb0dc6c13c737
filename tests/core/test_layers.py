"""The trunk drops what it is told to, owners do not meet, and batch norm is torch's own in one process."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from unlabeled.contract import Tokens
from unlabeled.layers import BatchNorm, Place, TransformerPredictor, Trunk, head, is_exporting, mean_of, synchronised


def trunk(depth: int = 2) -> Trunk:
    made = Trunk(32, depth, heads=4)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.2)
    return made


def some(B: int = 4, N: int = 7) -> tuple[Tensor, Tensor]:
    """Tokens, and which are kept: all, some, one, none."""
    keep = torch.rand(B, N) < 0.5
    keep[0], keep[1, 0], keep[2], keep[3] = True, True, torch.arange(N) == 4, False
    return torch.randn(B, N, 32), keep


def test_kept_tokens_are_those_of_a_pass_over_just_them() -> None:
    net = trunk()
    x, keep = some()
    out, layers = net(x, keep, layers=2)
    assert [layer.shape for layer in layers] == [x.shape] * 2
    for b in range(3):
        alone, inner = net(x[b : b + 1, keep[b]], torch.ones(1, int(keep[b].sum()), dtype=torch.bool), layers=2)
        torch.testing.assert_close(out[b, keep[b]], alone[0], rtol=1e-4, atol=1e-5)
        for layer, goal in zip(layers, inner, strict=True):
            torch.testing.assert_close(layer[b, keep[b]], goal[0], rtol=1e-4, atol=1e-5)
    assert (out[~keep] == 0).all()
    assert all((layer[~keep] == 0).all() for layer in layers)


def test_dropped_tokens_change_nothing_and_get_no_gradient() -> None:
    net = trunk()
    x, keep = some()
    x.requires_grad_()
    out, _ = net(x, keep)
    other, _ = net(torch.where(keep[..., None], x, 100 * torch.randn_like(x)), keep)
    assert torch.equal(out, other)
    (grad,) = torch.autograd.grad(out.square().sum() + out.sum(), x)
    assert grad.isfinite().all()
    assert (grad[~keep] == 0).all()
    assert grad[keep].abs().sum(-1).min() > 0


@pytest.mark.parametrize("samples", [1, 3])
def test_rows_that_keep_nothing_are_finite(samples: int) -> None:
    net = trunk()
    x = torch.randn(samples, 5, 32, requires_grad=True)
    out, _ = net(x, torch.zeros(samples, 5, dtype=torch.bool))
    out.sum().backward()
    assert (out == 0).all()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize("dropped", [False, True])
def test_owners_do_not_meet(dropped: bool) -> None:
    net = trunk()
    owner = torch.tensor([[0, 2, 0, 1, 1, 2, 2, 0, 3], [0, 0, 0, 0, 1, 1, 1, 1, 1]])
    x = torch.randn(2, 9, 32)
    keep = torch.ones(2, 9, dtype=torch.bool)
    if dropped:
        keep[0, [0, 4, 8]] = keep[1, 5] = False
    out, (last,) = net(x, keep, owner, layers=1)
    for b in range(2):
        for sample in owner[b].unique():
            at = (owner[b] == sample) & keep[b]
            if at.any():
                alone, (inner,) = net(x[b : b + 1, at], at[at][None], layers=1)
                torch.testing.assert_close(out[b, at], alone[0], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(last[b, at], inner[0], rtol=1e-4, atol=1e-5)
    assert (out[~keep] == 0).all()


def test_layers_are_the_last_ones_oldest_first() -> None:
    net = trunk(3)
    x, keep = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    out, kept = net(x, keep, layers=2)
    torch.testing.assert_close(net.blocks[2](kept[0]), kept[1])
    torch.testing.assert_close(net.norm(kept[1]), out)
    assert net(x, keep)[1] == []


@pytest.mark.parametrize("width", [8, 48, 65, 100, 130, 192])
def test_any_width_has_heads(width: int) -> None:
    out, _ = Trunk(width, 1)(torch.randn(1, 3, width), torch.ones(1, 3, dtype=torch.bool))
    assert out.shape == (1, 3, width)
    with pytest.raises(ValueError, match="multiple of 7"):
        Trunk(width, 1, heads=7)


def test_dropout_works_in_training_alone() -> None:
    net = Trunk(32, 1, dropout=0.5)
    x, keep = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    assert not torch.equal(net(x, keep)[0], net(x, keep)[0])
    net.eval()
    assert torch.equal(net(x, keep)[0], net(x, keep)[0])


def test_mean_of() -> None:
    x, keep = some()
    out = mean_of(x, keep)
    for b in range(3):
        torch.testing.assert_close(out[b], x[b, keep[b]].mean(0))
    assert (out[3] == 0).all()


def test_place_tells_near_places_apart_and_is_smooth() -> None:
    place = Place(2, 32)
    x = torch.cartesian_prod(torch.linspace(0, 1, 8), torch.linspace(0, 1, 8))[None]
    out = place(x)[0]
    assert out.shape == (64, 32)
    far = torch.cdist(out, out) + torch.eye(64)
    assert far.min() > 1e-3
    assert "frequencies" not in place.state_dict()


def test_the_predictor_reads_seen_latents_alone_and_of_wanted_places_only_where_they_are() -> None:
    net = TransformerPredictor(16, 1, 5, 32, 1)
    seen = torch.tensor([[1, 1, 0, 0, 0, 1]] * 2).bool()
    wanted = torch.tensor([[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]]).bool()  # of the second, one is seen and wanted
    tokens = Tokens(torch.zeros(2, 6, 1), torch.rand(2, 6, 1), torch.ones(2, 6, dtype=torch.bool), {})
    latent = torch.randn(2, 6, 16)
    out = net(latent, tokens, seen, wanted)
    assert out.shape == (2, 6, 5)
    other = torch.where((seen & ~wanted)[..., None], latent, latent + 9)
    assert torch.equal(net(other, tokens, seen, wanted)[wanted], out[wanted])
    assert not torch.allclose(net(latent + 1, tokens, seen, wanted)[wanted], out[wanted])


@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 3), (4, 5, 3, 2), (2, 5, 3, 2, 2)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_is_torchs_in_one_process(shape: tuple[int, ...], momentum: float | None) -> None:
    kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(shape) - 2]
    theirs, mine = kind(5, momentum=momentum), BatchNorm(5, momentum=momentum)
    for training in (True, True, False):
        theirs.train(training), mine.train(training)
        x = 3 * torch.randn(shape) + 2
        torch.testing.assert_close(mine(x), theirs(x))
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict())


def test_batch_norm_says_what_it_expects() -> None:
    with pytest.raises(ValueError, match=r"\[N, C, \.\.\.\]"):
        BatchNorm(5)(torch.randn(5))


def test_synchronised_keeps_weights_state_and_mode() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(3, affine=False).eval()))
    net(torch.randn(2, 1, 3, 3)[:, :, :, :]) if False else net[1](torch.randn(2, 4, 3, 3))
    net[1].weight.requires_grad_(False)
    before, weight = copy.deepcopy(net.state_dict()), net[1].weight
    made = synchronised(net)
    assert made is net
    assert type(net[1]) is type(net[2][0]) is BatchNorm
    assert net[1].weight is weight
    assert net[1].training
    assert not net[2][0].training
    torch.testing.assert_close(net.state_dict(), before)
    assert synchronised(net)[1] is net[1]


def test_synchronised_leaves_norms_that_do_more() -> None:
    class NormAndActivate(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    net = synchronised(nn.Sequential(NormAndActivate(3)))
    assert net(torch.randn(2, 3, 4, 4)).min() == 0


def test_head() -> None:
    kinds = [type(layer) for layer in head([3, 4, 5, 6], last_norm=True)]
    assert kinds == [nn.Linear, BatchNorm, nn.ReLU] * 2 + [nn.Linear, BatchNorm]
    plain = head([3, 4, 5], norm=False, act=nn.GELU)
    assert [type(layer) for layer in plain] == [nn.Linear, nn.GELU, nn.Linear]
    assert all(layer.bias is not None for layer in plain if isinstance(layer, nn.Linear))
    assert [layer.out_features for layer in head([3, 4, 5, 6]) if isinstance(layer, nn.Linear)] == [4, 5, 6]


# --- followed by torch.export


class Encode(nn.Module):
    """A trunk as a program takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(16, 2)

    def forward(self, x: Tensor, keep: Tensor, owner: Tensor | None = None) -> Tensor:
        out: Tensor = self.trunk(x, keep, owner)[0]
        return out


@pytest.mark.parametrize("flat", [False, True])
def test_a_program_of_a_trunk_gives_what_packing_gives(flat: bool) -> None:
    """Whatever is kept, nothing at all too; a program moves no tokens."""
    encode = Encode().eval()
    x = torch.randn(1, 14, 16) if flat else torch.randn(3, 7, 16)
    owner = (torch.arange(14) // 5)[None] if flat else None
    free = tuple({int(flat): torch.export.Dim.DYNAMIC} for _ in range(3 if flat else 2))
    given = (owner,) if flat else ()
    keep = torch.ones(x.shape[:2], dtype=torch.bool)
    program = torch.export.export(encode, (x, keep, *given), dynamic_shapes=free, strict=False).module()
    for share in (1.0, 0.6, 0.2, 0.0):
        keep = torch.rand(x.shape[:2]) < share
        torch.testing.assert_close(program(x, keep, *given), encode(x, keep, *given), atol=1e-6, rtol=0)


def test_compiling_is_not_exporting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_exporting()
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert is_exporting()
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
    assert not is_exporting()
