"""scSE, concurrent spatial and channel squeeze-and-excitation: Roy et al. 2018, arXiv 1803.02579, section 2.

    cSE = sigmoid(W2 relu(W1 z + b1) + b2)  with  z = mean over space     SE itself, (B, C, 1, 1)
    sSE = sigmoid(w x + b)                                               a 1x1 convolution to one channel, (B, 1, H, W)
    y   = x * cSE + x * sSE

The paper adds the two recalibrated maps; its sequel (arXiv 1808.08127) also takes their maximum, and the product
(`fuse`). Its reduction of 2 is for the narrow layers of segmentation networks; the default here is SE's 16.
"""

import torch
from torch import Tensor, nn

from zoo.attention.gate import Gate, require_choice, zero_
from zoo.attention.se import SqueezeExcite

FUSES = ("add", "max", "mul")
"""How scSE joins its two gates."""


class SpatialExcite(Gate):
    """sSE: weigh each place of (B, C, H, W) by one linear function of its channels."""

    def __init__(
        self,
        channels: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1, bias=bias, device=device, dtype=dtype)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), a full convolution, so under autocast in its precision."""
        return self.conv(x).to(self.conv.weight.dtype)

    def excite(self, squeezed: Tensor) -> Tensor:
        """The logits are the squeezed map."""
        return squeezed

    def make_constant(self) -> float:
        """The gate becomes sigmoid(0) = 1/2."""
        zero_(self.conv)
        return 0.5


class ScSE(nn.Module):
    """Weigh the channels of (B, C, H, W) and its places, and add the two results."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        fuse: str = "add",
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.fuse = require_choice("fuse", fuse, FUSES)
        self.channel = SqueezeExcite(channels, reduction, bias, act_layer=act_layer, device=device, dtype=dtype)
        self.spatial = SpatialExcite(channels, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        channel, spatial = self.channel.gate(x), self.spatial.gate(x)
        if self.fuse == "add":
            return x * (channel + spatial)
        return x * channel * spatial if self.fuse == "mul" else torch.maximum(x * channel, x * spatial)

    def make_constant(self) -> float:
        """Each gate becomes 1/2: their sum is 1, their maximum 1/2, their product 1/4."""
        channel, spatial = self.channel.make_constant(), self.spatial.make_constant()
        return {"add": channel + spatial, "max": channel, "mul": channel * spatial}[self.fuse]
