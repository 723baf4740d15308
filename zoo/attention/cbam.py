"""CBAM, convolutional block attention: Woo et al. 2018, arXiv 1807.06521, equations 1-3.

    Mc = sigmoid(MLP(mean over space) + MLP(max over space))      channel gate, (B, C, 1, 1)
    Ms = sigmoid(BN(conv([mean over channels; max over channels])))   spatial gate, (B, 1, H, W)
    y  = Ms(x') * x'  with  x' = Mc(x) * x

Canonical is the authors' code (Jongchan/attention-module): MLP with biases, batch norm behind the convolution.
`bias=False, norm=False` is the form of the paper's formula and of most blogs. Two deviations, neither of which
changes the function: the convolution reads [mean, max] where the authors' reads [max, mean] (flip its input
channels to convert), and its batch norm has PyTorch's momentum of 0.1 instead of 0.01, so that a short
fine-tuning run sees its statistics settle.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from zoo.attention.excitation import ChannelExcitation
from zoo.attention.gate import CONVS, NORMS, Gate, autograd_is_off, pooled_axes, require_choice, require_odd, zero_

POOLS = {"avg_max": ("avg", "max"), "avg": ("avg",), "max": ("max",)}
"""The channel gate's summaries, the paper's Table 1. With "avg" alone it is SE."""
SPATIAL_POOLS = {**POOLS, "conv": ("conv",)}
"""The spatial gate's summaries, the paper's Table 2: of the channels, or of a 1x1 convolution to one channel."""


class ChannelGate(ChannelExcitation):
    """Weigh each channel of (B, C, H, W) by its mean and its maximum, through one shared MLP."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        pool: str = "avg_max",
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, reduction, bias, keep_depth, dims, act_layer, device, dtype)
        pools = POOLS[require_choice("pool", pool, POOLS)]
        self.average, self.maximum = "avg" in pools, "max" in pools
        self.pools = len(pools)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (2, B, C, 1, 1): mean and maximum over space, stacked so that the MLP runs once."""
        dtype, summaries = self.fc1.weight.dtype, []
        if self.average:
            summaries.append(x.mean(self.axes, keepdim=True, dtype=dtype))
        if self.maximum:
            summaries.append(x.amax(self.axes, keepdim=True).to(dtype))
        return torch.stack(summaries)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(2, B, C, 1, 1) -> (B, C, 1, 1)."""
        # The second layer is linear, so it runs once on the sum: W2 a + b2 + W2 m + b2 = W2 (a + m) + 2 b2.
        logits = self.fc2(self.act(self.fc1(squeezed.transpose(2, -1))).sum(0))
        if self.pools > 1 and self.fc2.bias is not None:
            logits = logits + self.fc2.bias
        return logits.transpose(1, -1)


class SpatialGate(Gate):
    """Weigh each place of (B, C, H, W) by the mean and the maximum of its channels and its neighbours'.

    `channels` matters to `pool="conv"` alone.
    """

    def __init__(
        self,
        kernel_size: int = 7,
        norm: bool = True,
        pool: str = "avg_max",
        channels: int | None = None,
        dims: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        padding = require_odd("kernel_size", kernel_size) // 2
        pools = SPATIAL_POOLS[require_choice("pool", pool, SPATIAL_POOLS)]
        pooled_axes(dims, False)  # raises for wrong dims
        self.average, self.maximum, self.learned = "avg" in pools, "max" in pools, "conv" in pools
        if self.learned and channels is None:
            raise ValueError('pool="conv" is a 1x1 convolution of the channels, so it needs their number: channels=64')
        self.pool = (
            CONVS[dims](channels, 1, 1, bias=False, device=device, dtype=dtype)
            if self.learned and channels
            else nn.Identity()
        )
        self.conv = CONVS[dims](len(pools), 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        self.bn = NORMS[dims](1, device=device, dtype=dtype) if norm else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")  # as the authors' code

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2, H, W): mean and maximum over channels."""
        dtype, summaries = self.conv.weight.dtype, []
        if self.average:
            summaries.append(x.mean(1, keepdim=True, dtype=dtype))
        if self.maximum:
            summaries.append(x.amax(1, keepdim=True).to(dtype))
        if self.learned:
            summaries.append(self.pool(x).to(dtype))
        return torch.cat(summaries, 1)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, 1, H, W)."""
        return self.bn(self.conv(squeezed))

    def make_constant(self) -> float:
        """The gate becomes sigmoid(0) = 1/2."""
        zero_(self.conv if isinstance(self.bn, nn.Identity) else self.bn)
        return 0.5


ARRANGEMENTS = {
    "channel_spatial": ("channel", "spatial"),
    "spatial_channel": ("spatial", "channel"),
    "parallel": ("channel", "spatial"),
    "channel": ("channel",),
    "spatial": ("spatial",),
}
"""The orders of the paper's Table 3 and the single gates of Tables 1 and 2, as CBAM's `arrangement`."""


class CBAM(nn.Sequential):
    """The channel gate, then the spatial gate, on (B, C, H, W).

    `arrangement` picks another row of the paper's Table 3, `channel_pool` of Table 1 and `spatial_pool` of Table 2. In
    "parallel" both gates look at `x` itself and both multiply it; the paper names the row without a formula.
    With `dims=3` it takes volumes (B, C, D, H, W); `keep_depth` then weighs the channels of each slice apart.
    """

    # TorchScript takes two modules for one type when their children differ only in order, unless a constant differs.
    __constants__ = ("arrangement",)

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        bias: bool = True,
        norm: bool = True,
        arrangement: str = "channel_spatial",
        channel_pool: str = "avg_max",
        spatial_pool: str = "avg_max",
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        require_choice("arrangement", arrangement, ARRANGEMENTS)
        require_choice("channel_pool", channel_pool, POOLS)
        require_choice("spatial_pool", spatial_pool, SPATIAL_POOLS)
        gates: dict[str, Gate] = {
            "channel": ChannelGate(channels, reduction, bias, channel_pool, keep_depth, dims, act_layer, device, dtype),
            "spatial": SpatialGate(kernel_size, norm, spatial_pool, channels, dims, device, dtype),
        }
        super().__init__(OrderedDict((name, gates[name]) for name in ARRANGEMENTS[arrangement]))
        self.arrangement = arrangement
        self.parallel = arrangement == "parallel"

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, C, H, W) -> the same shape."""
        if torch.jit.is_scripting():  # noqa: SIM108  (TorchScript skips a branch, but no half of an expression)
            overwrite = False
        else:
            overwrite = autograd_is_off(x)
        y = x
        for i, gate in enumerate(self):
            weights = gate.gate(x if self.parallel else y)  # pyright: ignore[reportCallIssue]
            y = y.mul_(weights) if overwrite and i > 0 else y * weights
        return y

    def make_constant(self) -> float:
        """Each gate becomes 1/2, so both together multiply by 1/4."""
        constant = 1.0
        for gate in self:
            assert isinstance(gate, Gate)
            constant *= gate.make_constant()
        return constant
