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
from zoo.attention.gate import Gate, GateBatchNorm2d, autograd_is_off, require_choice, require_odd, zero_


class ChannelGate(ChannelExcitation):
    """Weigh each channel of (B, C, H, W) by its mean and its maximum, through one shared MLP."""

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (2, B, C): mean and maximum over space, stacked so that the MLP runs once."""
        dtype = self.fc1.weight.dtype
        return torch.stack((x.mean((2, 3), dtype=dtype), x.amax((2, 3)).to(dtype)))

    def excite(self, squeezed: Tensor) -> Tensor:
        """(2, B, C) -> (B, C, 1, 1)."""
        # The second layer is linear, so it runs once on the sum: W2 a + b2 + W2 m + b2 = W2 (a + m) + 2 b2.
        logits = self.fc2(self.act(self.fc1(squeezed)).sum(0))
        if self.fc2.bias is not None:
            logits = logits + self.fc2.bias
        return logits[:, :, None, None]


class SpatialGate(Gate):
    """Weigh each place of (B, C, H, W) by the mean and the maximum of its channels and its neighbours'."""

    def __init__(
        self,
        kernel_size: int = 7,
        norm: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        padding = require_odd("kernel_size", kernel_size) // 2
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        self.bn = GateBatchNorm2d(1, device=device, dtype=dtype) if norm else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")  # as the authors' code

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2, H, W): mean and maximum over channels."""
        dtype = self.conv.weight.dtype
        return torch.cat((x.mean(1, keepdim=True, dtype=dtype), x.amax(1, keepdim=True).to(dtype)), 1)

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

    `arrangement` picks another row of the paper's Table 3. In "parallel" both gates look at `x` itself and both
    multiply it; the paper names the row without a formula.
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
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        require_choice("arrangement", arrangement, ARRANGEMENTS)
        gates: dict[str, Gate] = {
            "channel": ChannelGate(channels, reduction, bias, act_layer, device, dtype),
            "spatial": SpatialGate(kernel_size, norm, device, dtype),
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
