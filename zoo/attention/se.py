"""SE, squeeze-and-excitation: Hu et al. 2018, arXiv 1709.01507, equations 2-4.

    z = mean over space of x                 squeeze
    s = sigmoid(W2 relu(W1 z + b1) + b2)     excitation
    y = s * x                                scale, 2 s * x where neutral

The authors' networks have biases in both layers; most re-implementations, and the paper's formula, have none
(`bias=False`). The hidden width is C / reduction as it is, not rounded to a multiple of 8 as timm does.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attention import ops
from zoo.attention.excitation import ChannelExcitation
from zoo.attention.kernels import chosen

if TYPE_CHECKING:
    from zoo.attention.kernels.se import Parameters


class SqueezeExcite(ChannelExcitation):
    """Weigh each channel of (B, C, H, W) by what its mean and the other channels' means say."""

    paper = "SE, squeeze-and-excitation: Hu et al. 2018, arXiv 1709.01507"

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return ops.mean_over_space(x, self.axes, self.precision(x))

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same shape."""
        # A linear layer acts on the last axis, so the channels (axis 1) go there and back.
        return self.fc2(self.act(self.fc1(squeezed.transpose(1, -1)))).transpose(1, -1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.step_by_step(x)
        else:
            return self.at_once(x) if self.fusable(x) else self.step_by_step(x)

    def fusable(self, x: Tensor) -> bool:
        """Whether `zoo::se` computes what this module does, and runs on `x`."""
        if type(x) is not Tensor:  # a symbolic trace would take down each weight that is named here
            return False
        if torch.compiler.is_compiling():
            return False  # a compiler joins it with its neighbours, at least as fast (zoo/attention/kernels/README.md)
        layers = (self, self.fc1, self.act, self.fc2)
        known = not self.part and len(self.axes) > 1 and self.has_plain_layers()
        return known and chosen(x, layers, self.fc1.weight) and len(self.axes) == x.ndim - 2

    def at_once(self, x: Tensor) -> Tensor:
        """`step_by_step(x)`, by the kernel."""
        from zoo.attention.kernels.se import se

        return se(x, self.parts())

    def parts(self) -> "Parameters":
        """What `zoo::se` takes besides the map."""
        from zoo.attention.kernels.se import Parameters

        fc1, fc2 = self.fc1, self.fc2
        return Parameters(fc1.weight, fc1.bias, fc2.weight, fc2.bias, self.scale)
