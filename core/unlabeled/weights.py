"""How the losses of several terms become one: by weights that are given, that follow a schedule, or solved for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import Tensor, nn

from unlabeled.collectives import mean_over_ranks
from unlabeled.errors import UserError, choose, nearest
from unlabeled.rows import Method, Weight
from unlabeled.schedules import Clock, cosine, linear

Losses = Mapping[str, Tensor]  # [] each, by the term's name
Sum = tuple[Tensor, dict[str, Tensor]]
"""The loss of a step, and the weights that move, as "<term>/weight", for the log."""

CURVES = {"cosine": cosine, "line": linear}


@dataclass(frozen=True, slots=True)
class Ramp:
    """A weight that goes from `start` to `end` between two shares of the run, along half a cosine or a line."""

    start: float
    end: float
    from_: float = 0.0
    to: float = 1.0
    along: str = "cosine"

    def __call__(self, clock: Clock) -> float:
        begin = self.from_ * clock.steps
        return CURVES[self.along](clock.step - begin, self.to * clock.steps - begin, self.start, self.end)


def ramp_of(term: str, data: Mapping[str, Any]) -> Ramp:
    """A ramp from the plain data of config.yaml: {start: 0, end: 1, from: 0.1, to: 0.5, along: line}.

    Raises:
        UserError: it is not one.
    """
    given = {("from_" if key == "from" else key): value for key, value in data.items()}
    known = [one.name for one in fields(Ramp)]
    for key in given:
        if key not in known:
            raise UserError(f"{term}.weight has no {key!r}; {nearest(key, ['from', *known[:2], *known[3:]])}")
    along = given.pop("along", "cosine")
    choose(f"curve of {term}.weight", along, CURVES)
    try:
        ramp = Ramp(**{key: float(value) for key, value in given.items()}, along=along)
    except (TypeError, ValueError):
        raise UserError(f"{term}.weight is a number, or says at least start and end in numbers, not {data}") from None
    if not 0 <= ramp.from_ < ramp.to <= 1:
        raise UserError(f"{term}.weight moves from one share of the run to a later one, not {ramp.from_} to {ramp.to}")
    return ramp


class Given:
    """Σ weight × loss, by numbers or ramps."""

    def __init__(self, weights: Mapping[str, Weight]):
        self.weights = {
            name: weight if isinstance(weight, int | float) else ramp_of(name, weight)
            for name, weight in weights.items()
        }

    def __call__(self, losses: Losses, clock: Clock) -> Sum:
        total: Tensor | None = None
        moved: dict[str, Tensor] = {}
        for name, loss in losses.items():
            weight = self.weights[name]
            if isinstance(weight, Ramp):
                weight = weight(clock)
                moved[f"{name}/weight"] = loss.detach().new_full((), weight)
            total = weight * loss if total is None else total + weight * loss
        assert total is not None, "a method has terms"
        return total, moved


class Pareto:
    """Multiple-gradient descent (Désidéri 2012; Sener & Koltun, arXiv 1810.04650; ParetoGNN, 2210.02016).

    The weights, which sum to 1, are those of the shortest vector among all weighted means of the terms' gradients on
    the encoder: a step against it makes no term worse, and where it is zero none can gain but at another's cost.
    T terms cost T backward passes through the encoder besides the usual one, and T copies of its gradient. Gradients
    are averaged over ranks, so that all solve the same problem; each micro-batch has weights of its own. The terms'
    heads see their losses with the same weights, as in the authors' code.

    A term with small gradients gets nearly all the weight. `unit` solves for gradients of length 1 instead, so that
    the units of a loss do not matter. ParetoGNN's code does so too, but weighs the gradients as they were, which may
    make a term worse.

    Raises:
        UserError: a term has a weight of its own.
    """

    def __init__(self, weights: Mapping[str, Weight], shared: nn.Module, unit: bool = False):
        for name, weight in weights.items():
            if weight != 1:
                raise UserError(f"weights are solved for, and term {name!r} has one of its own: set {name}.weight=1")
        self.shared = [weight for weight in shared.parameters() if weight.requires_grad]
        self.unit = unit
        functorch.donated_buffer = False  # a compiled encoder would give away what the next backward pass needs

    def __call__(self, losses: Losses, clock: Clock) -> Sum:
        grads = mean_over_ranks(torch.stack([self._gradient(loss) for loss in losses.values()]))  # [T, P]
        gram = (grads @ grads.T).double()
        scale = gram.diag().clamp(min=1e-300).rsqrt() if self.unit else torch.ones_like(gram[0])
        found = min_norm(gram * scale * scale[:, None]) * scale
        weights = (found / found.sum()).to(grads.dtype).unbind()
        total = torch.stack([weight * loss for weight, loss in zip(weights, losses.values(), strict=True)]).sum()
        return total, {f"{name}/weight": weight for name, weight in zip(losses, weights, strict=True)}

    def _gradient(self, loss: Tensor) -> Tensor:  # [P]
        grads = torch.autograd.grad(loss, self.shared, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([grad.flatten() for grad in grads])


def min_norm(gram: Tensor) -> Tensor:
    """The point of the simplex where wᵀ G w is least: [T, T] inner products of gradients -> [T] weights.

    Every face of the simplex has a closed form (for two terms it is that of Sener & Koltun), and the best feasible
    one is the answer. For the few terms of a method that is exact and quicker than Frank-Wolfe, whose steps are many
    where norms differ, and it waits for no device.
    """
    T = len(gram)
    inside = ((torch.arange(1, 2**T, device=gram.device)[:, None] >> torch.arange(T, device=gram.device)) & 1).to(gram)
    system = gram.new_zeros(len(inside), T + 1, T + 1)  # stationary points on each face, with Σw = 1 as a border
    system[:, :T, :T] = gram / gram.diag().mean().clamp(min=1e-300) * inside[:, :, None] * inside[:, None]
    system[:, :T, :T] += torch.diag_embed(1 - inside)
    system[:, :T, T] = system[:, T, :T] = inside
    goal = torch.eye(T + 1, dtype=gram.dtype, device=gram.device)[T].expand(len(inside), -1)
    points = torch.linalg.solve_ex(system, goal)[0][:, :T]  # faces of dependent gradients have none, or any
    feasible = (points > -1e-9).all(1) & ((points.sum(1) - 1).abs() < 1e-6)
    value = torch.einsum("ft,tu,fu->f", points, gram, points)
    found = points.index_select(0, torch.where(feasible, value, torch.inf).argmin(0, keepdim=True))[0].clamp(min=0)
    out: Tensor = found / found.sum()
    return out


def weigher(method: Method, names: list[str], encoder: nn.Module) -> Callable[[Losses, Clock], Sum]:
    """What sums the terms of a method; `names` are theirs, in the method's order.

    Raises:
        UserError: a weight is none, or is given where weights are solved for.
    """
    weights = {name: part.weight for name, part in zip(names, method.terms, strict=True)}
    if method.weights == "fixed" or len(weights) < 2:
        return Given(weights)
    return Pareto(weights, encoder, method.weights == "pareto_unit")
