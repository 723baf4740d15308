"""scSE, concurrent spatial and channel squeeze-and-excitation: Roy et al. 2018, arXiv 1803.02579, section 2.

    cSE = sigmoid(W2 relu(W1 z + b1) + b2)  with  z = mean over space     SE itself, (B, C, 1, 1)
    sSE = sigmoid(w x + b)                                               a 1x1 convolution to one channel, (B, 1, H, W)
    y   = x * cSE + x * sSE                                              1/2 + 1/2 at the start: neutral as it is

The paper adds the two recalibrated maps; its sequel (arXiv 1808.08127) also takes their maximum, and the product
(`fuse`; there cSE and sSE are doubled where neutral). Its reduction of 2 is for the narrow layers of segmentation
networks; the default here is SE's 16.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.arguments import require_choice
from zoo.attention.contract import Attention, Factory
from zoo.attention.dimensions import CONVS, require_dims
from zoo.attention.gate import Gate, zero_
from zoo.attention.se import SqueezeExcite

FUSES = ("add", "max", "mul")
"""How scSE joins its two gates."""
PAPER = "scSE, concurrent spatial and channel squeeze-and-excitation: Roy et al. 2018, arXiv 1803.02579"


class SpatialExcite(Gate):
    """sSE: weigh each place of (B, C, H, W) by one linear function of its channels."""

    paper = PAPER
    weighs = "spatial"

    def __init__(
        self,
        channels: int,
        bias: bool = True,
        dims: int = 2,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.conv = CONVS[require_dims(dims)](channels, 1, 1, bias=bias, **factory)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), a full convolution, so under autocast in its precision."""
        return ops.cast(self.conv(x), self.precision(x))

    def excite(self, squeezed: Tensor) -> Tensor:
        """The logits are the squeezed map."""
        return squeezed

    def make_constant(self) -> float:
        """The sigmoid becomes 1/2."""
        zero_(self.conv)
        return self.start * self.scale


class ScSE(Attention):
    """Weigh the channels of (B, C, H, W) and its places, and add the two results."""

    paper = PAPER

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        fuse: str = "add",
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.fusion = require_choice("fuse", fuse, FUSES)
        doubled = neutral and fuse != "add"  # the sum of two halves is one as it is
        self.channel = SqueezeExcite(
            channels, reduction, bias, dims=dims, act_layer=act_layer, neutral=doubled, **factory
        ).as_part()
        if neutral:
            self.channel.wake()
        self.spatial = SpatialExcite(channels, bias, dims, doubled, **factory).as_part()

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        channel, spatial = self.channel.gates(x)["channel"], self.spatial.gates(x)["spatial"]
        if self.fusion == "mul":
            return {"channel": channel, "spatial": spatial}
        if self.fusion == "add":
            return {"joint": channel + spatial}
        # The larger of the two recalibrated values has the larger gate where `x` is positive, else the smaller one.
        return {"joint": torch.where(x >= 0, torch.maximum(channel, spatial), torch.minimum(channel, spatial))}

    def forward(self, x: Tensor) -> Tensor:
        channel, spatial = self.channel.opened(self.channel(x)), self.spatial.opened(self.spatial(x))
        if self.fusion == "add":
            return ops.weigh_by_sum(x, channel, spatial)
        if self.fusion == "mul":
            return ops.weigh(ops.weigh(x, channel), spatial)
        return torch.maximum(ops.weigh(x, channel), ops.weigh(x, spatial))

    def make_constant(self) -> float:
        """Each sigmoid becomes 1/2: the published sum is 1, the maximum 1/2, the product 1/4."""
        channel, spatial = self.channel.make_constant(), self.spatial.make_constant()
        return {"add": channel + spatial, "max": channel, "mul": channel * spatial}[self.fusion]
