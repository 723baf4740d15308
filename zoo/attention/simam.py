"""SimAM, a simple, parameter-free attention: Yang et al. 2021, ICML, equation 5 and the paper's listing.

    d = (x - mean of the channel's map)^2,   v = sum of d / (HW - 1)
    y = x * sigmoid(d / (4 (v + lambda)) + 1/2)

It has nothing to learn and so nothing to set to a constant: a network with it cannot start as its plain backbone, and
it has no neutral form.
"""

from typing import Unpack

import torch
from torch import Tensor

from zoo.attention import ops
from zoo.attention.contract import Factory
from zoo.attention.dimensions import pooled_axes
from zoo.attention.gate import Gate
from zoo.attention.precision import at_least_fp32


class SimAM(Gate):
    """Weigh each value of (B, C, H, W) by how far it is from its channel's mean."""

    paper = "SimAM, a simple, parameter-free attention: Yang et al. 2021, ICML"
    weighs = "joint"

    def __init__(
        self,
        channels: int,
        regulariser: float = 1e-4,
        dims: int = 2,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        """Raises ValueError for `neutral`, and unless `regulariser` is above 0."""
        super().__init__(**factory)
        if neutral:
            raise ValueError("SimAM has no constant by which a neutral gate could be divided; leave out neutral=True")
        if not regulariser > 0:
            raise ValueError(f"regulariser must be above 0, or a flat map divides by it, not {regulariser!r}")
        self.regulariser = regulariser
        self.axes = pooled_axes(dims, keep_depth=False)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, in fp32 at least: the least energy of each value, inverted."""
        x = at_least_fp32(x)
        distance = (x - ops.mean_over_space(x, self.axes, None)).square()
        # Counted by tensors, so that an export does not fix the size. A 1x1 map has no other place and no variance.
        others = torch.ones_like(x[:, :1]).sum(self.axes, keepdim=True) - 1
        variance = distance.sum(self.axes, keepdim=True) / others.clamp(min=1)
        # By methods: the sum of an operator would be rounded by torch.ao's quantisation, for most channels to nothing.
        return distance / variance.add(self.regulariser).mul(4) + 0.5

    def excite(self, squeezed: Tensor) -> Tensor:
        """The logits are the inverse energy."""
        return squeezed

    def make_constant(self) -> float:
        """Raises ValueError: the gate depends on the input alone."""
        raise ValueError("SimAM has no parameters, so no weights make it constant")
