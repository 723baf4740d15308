"""ECA, efficient channel attention: Wang et al. 2020, arXiv 1910.03151, equations 9 and 12.

    y = x * sigmoid(conv1d_k(mean over space of x))      a convolution along the channels, no bias; doubled if neutral
    k = |log2(C) / 2 + 1 / 2|, the next odd number       (the authors' code truncates, then adds 1 to an even number)

timm's EcaModule is the same formula (at least 3 wide); this one keeps the gate in fp32 under autocast, takes an
empty batch and can be made constant.
"""

import math
from typing import Unpack

from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.arguments import require_odd
from zoo.attention.contract import Factory
from zoo.attention.dimensions import pooled_axes
from zoo.attention.gate import Gate, zero_


def kernel_width(channels: int) -> int:
    """Equation 12 with gamma = 2 and b = 1."""
    width = int((math.log2(channels) + 1) / 2)
    return width if width % 2 else width + 1


class ECA(Gate):
    """Weigh each channel of (B, C, H, W) by the means of its neighbours among the channels."""

    paper = "ECA, efficient channel attention: Wang et al. 2020, arXiv 1910.03151"
    weighs = "channel"

    def __init__(
        self,
        channels: int,
        kernel_size: int | None = None,
        dims: int = 2,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.axes = pooled_axes(dims, keep_depth=False)
        width = kernel_width(channels) if kernel_size is None else require_odd("kernel_size", kernel_size)
        self.conv = nn.Conv1d(1, 1, width, padding=width // 2, bias=False, **factory)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return ops.mean_over_space(x, self.axes, self.precision(x))

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same shape."""
        return self.conv(squeezed.flatten(1)[:, None]).view_as(squeezed)

    def make_constant(self) -> float:
        """The sigmoid becomes 1/2."""
        zero_(self.conv)
        return self.start * self.scale
