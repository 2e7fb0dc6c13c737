"""Low-rank adapters on an encoder's linear layers (LoRA, arXiv 2106.09685), put in before training, merged after."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import parametrize

from unlabeled.contract import Encoder
from unlabeled.errors import UserError


class LowRank(nn.Module):
    """W + B A of a weight [out, in], with A [rank, in] and B [out, rank]; B is zero at first, so that nothing changes.

    It stands in front of the weight, not of the layer, so that code which reads the weight itself (torch's own
    attention) has it too. A starts as a linear layer's weight would, as in the authors' code; their factor α/r is 1.
    """

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.shape
        self.A = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, columns), a=5**0.5))
        self.B = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.B @ self.A


def adapt(encoder: Encoder, rank: int) -> None:
    """Freeze an encoder but for adapters of a rank on its linear layers; running statistics still move.

    An EMA teacher made of it has moving averages of A and of B.

    Raises:
        UserError: it has no linear layer.
    """
    linears = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    linears = [module for module in linears if not parametrize.is_parametrized(module)]
    if not linears:
        raise UserError(f"lora adapts linear layers and encoder {type(encoder).__name__!r} has none; leave --lora out")
    encoder.requires_grad_(False)
    for module in linears:
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merged(encoder: Encoder) -> Encoder:
    """The encoder with its adapters added to its weights, as a copy; itself where it has none."""
    if not any(isinstance(module, LowRank) for module in encoder.modules()):
        return encoder
    encoder = copy.deepcopy(encoder)
    for module in list(encoder.modules()):
        if isinstance(module, nn.Linear) and isinstance(_adapter(module), LowRank):
            weight, plain = module.weight.detach(), parametrize.type_before_parametrizations(module)
            del module.parametrizations  # torch's own removal would change the class that copies share
            module.__class__ = plain
            module.weight = nn.Parameter(weight)
    return encoder


def _adapter(module: nn.Module) -> nn.Module | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return module.get_submodule("parametrizations.weight.0")
