"""CBAM, convolutional block attention: Woo et al. 2018, arXiv 1807.06521, equations 1-3.

    Mc = sigmoid(MLP(mean over space) + MLP(max over space))      channel gate, (B, C, 1, 1)
    Ms = sigmoid(BN(conv([mean over channels; max over channels])))   spatial gate, (B, 1, H, W)
    y  = Ms(x') * x'  with  x' = Mc(x) * x        2 Mc and 2 Ms where neutral, so Ms reads what 2 Mc left

Canonical is the authors' code (Jongchan/attention-module): MLP with biases, batch norm behind the convolution.
`bias=False, norm=False` is the form of the paper's formula and of most blogs. Two deviations, neither of which
changes the function: the convolution reads [mean, max] where the authors' reads [max, mean] (flip its input
channels to convert), and its batch norm has PyTorch's momentum of 0.1 instead of 0.01, so that a short
fine-tuning run sees its statistics settle.
"""

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.arguments import require_choice, require_odd
from zoo.attention.contract import Attention, Factory
from zoo.attention.dimensions import CONVS, NORMS, require_dims
from zoo.attention.excitation import ChannelExcitation
from zoo.attention.gate import Gate, zero_
from zoo.attention.kernels import chosen

if TYPE_CHECKING:
    from zoo.attention.kernels.cbam import Parameters

POOLS = {"avg_max": ("avg", "max"), "avg": ("avg",), "max": ("max",)}
"""The channel gate's summaries, the paper's Table 1. With "avg" alone it is SE."""
SPATIAL_POOLS = {**POOLS, "conv": ("conv",)}
"""The spatial gate's summaries, the paper's Table 2: of the channels, or of a 1x1 convolution to one channel."""
PAPER = "CBAM, convolutional block attention: Woo et al. 2018, arXiv 1807.06521"


class ChannelGate(ChannelExcitation):
    """Weigh each channel of (B, C, H, W) by its mean and its maximum, through one shared MLP."""

    paper = PAPER

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        pool: str = "avg_max",
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(channels, reduction, bias, keep_depth, dims, act_layer, neutral, **factory)
        pools = POOLS[require_choice("pool", pool, POOLS)]
        self.average, self.maximum = "avg" in pools, "max" in pools
        self.pools = len(pools)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (2, B, C, 1, 1): mean and maximum over space, stacked so that the MLP runs once."""
        return ops.pool_space(x, self.axes, self.precision(x), self.average, self.maximum)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(2, B, C, 1, 1) -> (B, C, 1, 1)."""
        # The second layer is linear, so it runs once, on the mean: W2 a + b2 + W2 m + b2 = 2 (W2 (a + m) / 2 + b2).
        logits = self.fc2(self.act(self.fc1(squeezed.transpose(2, -1))).mean(0)).transpose(1, -1)
        return logits if self.pools == 1 else logits * self.pools


class SpatialGate(Gate):
    """Weigh each place of (B, C, H, W) by the mean and the maximum of its channels and its neighbours'."""

    paper = PAPER
    weighs = "spatial"

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        norm: bool = True,
        pool: str = "avg_max",
        dims: int = 2,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        padding = require_odd("kernel_size", kernel_size) // 2
        pools = SPATIAL_POOLS[require_choice("pool", pool, SPATIAL_POOLS)]
        conv_layer, norm_layer = CONVS[require_dims(dims)], NORMS[dims]
        self.average, self.maximum, self.learned = "avg" in pools, "max" in pools, "conv" in pools
        self.pool = conv_layer(channels, 1, 1, bias=False, **factory) if self.learned else nn.Identity()
        self.conv = conv_layer(len(pools), 1, kernel_size, padding=padding, bias=False, **factory)
        self.bn = norm_layer(1, **factory) if norm else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")  # as the authors' code

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2, H, W): mean and maximum over channels; or (B, 1, H, W), one of them or a mixture."""
        dtype = self.precision(x)
        if self.learned:
            return ops.cast(self.pool(x), dtype)
        return ops.pool_channels(x, dtype, self.average, self.maximum)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, 1, H, W)."""
        return self.bn(self.conv(squeezed))

    def make_constant(self) -> float:
        """The sigmoid becomes 1/2."""
        zero_(self.conv if isinstance(self.bn, nn.Identity) else self.bn)
        return self.start * self.scale


ARRANGEMENTS = {
    "channel_spatial": ("channel", "spatial"),
    "spatial_channel": ("spatial", "channel"),
    "parallel": ("channel", "spatial"),
    "channel": ("channel",),
    "spatial": ("spatial",),
}
"""The orders of the paper's Table 3 and the single gates of Tables 1 and 2, as CBAM's `arrangement`."""
MANY = 128
"""From so many channels on a compiler's own code is 2 % faster in inference, as it joins CBAM with its neighbours; with
fewer it may be 12 % slower (zoo/attention/kernels/README.md)."""
KNOWN_NORMS = (nn.Identity, *NORMS.values())
"""Behind the convolution, as `zoo::cbam` knows it; another, such as one over all processes, is called."""


class CBAM(Attention):
    """The channel gate, then the spatial gate, on (B, C, H, W).

    `arrangement` picks another row of the paper's Table 3, `channel_pool` of Table 1 and `spatial_pool` of Table 2. In
    "parallel" both gates look at `x` itself and both multiply it; the paper names the row without a formula.
    With `dims=3` it takes volumes (B, C, D, H, W); `keep_depth` then weighs the channels of each slice apart.

    Without autograd the second gate multiplies in place, so a hook on it that keeps its input must copy it.
    """

    paper = PAPER

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
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        require_choice("arrangement", arrangement, ARRANGEMENTS)
        require_choice("channel_pool", channel_pool, POOLS)
        require_choice("spatial_pool", spatial_pool, SPATIAL_POOLS)
        super().__init__(neutral, **factory)
        self.arrangement = arrangement
        self.parallel = arrangement == "parallel"
        pools = {channel_pool, spatial_pool}
        self.canonical = arrangement == "channel_spatial" and pools == {"avg_max"} and not keep_depth
        gates: dict[str, Gate] = {
            "channel": ChannelGate(
                channels, reduction, bias, channel_pool, keep_depth, dims, act_layer, neutral, **factory
            ),
            "spatial": SpatialGate(channels, kernel_size, norm, spatial_pool, dims, neutral, **factory),
        }
        self.channel = self.spatial = None
        for name in ARRANGEMENTS[arrangement]:  # the order in which the gates become children is that of `forward`
            setattr(self, name, gates[name].as_part())

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        found, y = dict[str, Tensor](), x
        for gate in self.children():
            assert isinstance(gate, Gate)
            new = gate.gates(x if self.parallel else y)
            found |= new
            y = y * new[gate.weighs]
        return found

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.step_by_step(x)
        else:
            return self.at_once(x) if self.fusable(x) else self.step_by_step(x)

    def fusable(self, x: Tensor) -> bool:
        """Whether `zoo::cbam` computes what this module does, and runs on `x`."""
        channel, spatial = self.channel, self.spatial
        if type(x) is not Tensor or not self.canonical or channel is None or spatial is None:
            return False  # a symbolic trace would take down each weight that is named below
        if torch.compiler.is_compiling() and not torch.is_grad_enabled() and x.shape[1] >= MANY:
            return False
        known = channel.has_plain_layers() and type(spatial.conv) in CONVS.values() and type(spatial.bn) in KNOWN_NORMS
        parts = (channel, channel.fc1, channel.act, channel.fc2, spatial, spatial.conv, spatial.bn)
        return known and chosen(x, parts, channel.fc1.weight) and x.ndim == spatial.conv.weight.ndim

    def at_once(self, x: Tensor) -> Tensor:
        """`step_by_step(x)`, by the kernel."""
        from zoo.attention.kernels.cbam import cbam

        self.count_batch(x)
        return cbam(x, self.parts())

    def count_batch(self, x: Tensor) -> None:
        """As the batch norm's own forward does, where a batch decides."""
        norm = self.spatial.bn if self.spatial is not None else None
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and x.numel() > x.shape[1]:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)

    def parts(self) -> "Parameters":
        """What `zoo::cbam` takes besides the map."""
        from zoo.attention.kernels.cbam import Parameters

        channel, spatial = self.channel, self.spatial
        assert channel is not None and spatial is not None
        fc1, fc2, norm = channel.fc1, channel.fc2, spatial.bn
        arguments: list[Any] = [fc1.weight, fc1.bias, fc2.weight, fc2.bias, spatial.conv.weight]
        if isinstance(norm, nn.Identity) and spatial.conv.bias is None:
            arguments += [None, None, None, None, False, 0.0, 0.0]
        elif isinstance(norm, nn.Identity):  # the kernel knows no bias, but a norm that does nothing else
            one, zero = torch.ones_like(spatial.conv.bias), torch.zeros_like(spatial.conv.bias)
            arguments += [one, spatial.conv.bias, zero, one, False, 0.0, 0.0]
        else:
            arguments += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
            share = 1 / max(1, int(norm.num_batches_tracked or 0)) if norm.momentum is None else norm.momentum
            arguments += [norm.training, share, norm.eps]
        return Parameters(*arguments, scale=channel.scale)

    def step_by_step(self, x: Tensor) -> Tensor:
        overwrite, y = ops.may_overwrite(x), x
        for i, gate in enumerate(self.children()):
            weights = gate.weights(gate(x if self.parallel else y), x)  # pyright: ignore[reportCallIssue]  a Gate
            y = ops.multiply_(y, weights) if overwrite and i > 0 else ops.multiply(y, weights)
        return y

    def make_constant(self) -> float:
        """Each sigmoid becomes 1/2, so the published form multiplies by 1/4."""
        constant = 1.0
        for gate in self.children():
            assert isinstance(gate, Gate)
            constant *= gate.make_constant()
        return constant
