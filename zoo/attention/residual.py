"""The end of a ResNet's block: `relu(gate(x) + shortcut)`, on a GPU in one operation."""

import torch
from torch import Tensor, nn

from zoo.attention.cbam import CBAM
from zoo.attention.se import SqueezeExcite


def residual(gate: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """(B, C, H, W) twice -> the same shape.

    One operation for `CBAM` and `SqueezeExcite` where their kernels run on a GPU (`chosen` in kernels/choice.py): the
    shortcut and the ReLU are in the last pass over the map. Elsewhere three. No network of the catalogue calls it yet.
    """
    alike = x.is_cuda and shortcut.shape == x.shape and shortcut.dtype == x.dtype
    if alike and isinstance(gate, CBAM | SqueezeExcite) and gate.fusable(x):
        return _at_once(gate, x, shortcut)
    return torch.relu(gate(x) + shortcut)


def _at_once(gate: CBAM | SqueezeExcite, x: Tensor, shortcut: Tensor) -> Tensor:
    from zoo.attention.kernels import tail_ops
    from zoo.attention.kernels.cbam import settle

    if isinstance(gate, CBAM):
        gate.count_batch(x)
        parts = gate.parts()
        return settle(tail_ops.cbam_tail(x, shortcut, True, *parts), parts)
    return tail_ops.se_tail(x, shortcut, True, *gate.parts())[0]
