"""BAM, bottleneck attention: Park et al. 2018, arXiv 1807.06514, equations 1-4.

    Mc = FC(relu(BN(FC(mean over space))))                         channel branch, (B, C, 1, 1)
    Ms = conv1x1(3x3 dilated(3x3 dilated(conv1x1(x))))             spatial branch, (B, 1, H, W)
    y  = x * (1 + sigmoid(Mc + Ms))                                divided by 1.5 where neutral

The paper adds the branches; the authors' code, and with it their published weights, multiplies them
(`fuse="mul"`). Batch norm sits where the code has it, behind the first layer of the channel branch and behind the
first three of the spatial one. The paper's text has one more at the end of each branch, and its CIFAR table counts
it (`end_norm=True`: ResNet-50 24.07 M, ResNeXt-29 34.61 M). Unlike the code, the pooling takes any map size and one
image trains alone (zoo/attention/norms.py).
"""

from collections import OrderedDict
from typing import Unpack

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.arguments import require_choice, require_positive
from zoo.attention.contract import Attention, Factory
from zoo.attention.dimensions import CONVS, NORMS, pooled_axes, require_dims
from zoo.attention.excitation import hidden_width
from zoo.attention.gate import Gate, zero_
from zoo.attention.kernels import chosen

FUSES = ("add", "mul", "max")
"""How BAM joins its branches: the paper's sum, the product of the authors' code, or the larger (its Table 2)."""
BRANCHES = ("both", "channel", "spatial")
"""Both branches, or one alone (the paper's Table 2)."""
PAPER = "BAM, bottleneck attention: Park et al. 2018, arXiv 1807.06514"


class BAMChannel(Gate):
    """BAM's channel branch: what the mean of each channel of (B, C, H, W) says about all channels."""

    paper = PAPER
    weighs = "channel"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        end_norm: bool = False,
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.axes = pooled_axes(dims, keep_depth)
        hidden, norm_layer = hidden_width(channels, reduction), NORMS[dims]
        self.fc1 = nn.Linear(channels, hidden, **factory)
        self.bn = norm_layer(hidden, **factory)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels, **factory)
        self.end_bn = norm_layer(channels, **factory) if end_norm else nn.Identity()

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return ops.mean_over_space(x, self.axes, self.precision(x))

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same shape."""
        # Linear layers act on the last axis, norms on axis 1.
        hidden = self.act(self.bn(self.fc1(squeezed.transpose(1, -1)).transpose(1, -1)))
        return self.end_bn(self.fc2(hidden.transpose(1, -1)).transpose(1, -1))

    def make_constant(self) -> float:
        """The branch's logits become 0, its sigmoid 1/2."""
        zero_(self.fc2 if isinstance(self.end_bn, nn.Identity) else self.end_bn)
        return self.start * self.scale


class BAMSpatial(Gate):
    """BAM's spatial branch: two dilated 3x3 convolutions on C / reduction channels of (B, C, H, W)."""

    paper = PAPER
    weighs = "spatial"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        end_norm: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        hidden = hidden_width(channels, reduction)
        conv_layer, norm_layer = CONVS[require_dims(dims)], NORMS[dims]
        pad = require_positive("dilation", dilation)
        convs = {
            "reduce": conv_layer(channels, hidden, 1, **factory),
            "conv1": conv_layer(hidden, hidden, 3, padding=pad, dilation=dilation, **factory),
            "conv2": conv_layer(hidden, hidden, 3, padding=pad, dilation=dilation, **factory),
        }
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, conv in convs.items():
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as the authors' code
            layers[name] = conv
            layers[f"{name}_bn"] = norm_layer(hidden, **factory)
            layers[f"{name}_act"] = act_layer()
        self.trunk = nn.Sequential(layers)
        self.project = conv_layer(hidden, 1, 1, **factory)
        self.end_bn = norm_layer(1, **factory) if end_norm else nn.Identity()

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C / reduction, H, W).

        These are full convolutions, so under autocast they run in its precision like the network's own.
        """
        if torch.jit.is_scripting():
            return ops.cast(self.trunk(x), self.precision(x))
        else:
            return ops.cast(self.through_the_trunk(x), self.precision(x))

    def through_the_trunk(self, x: Tensor) -> Tensor:
        """`trunk(x)`, layer by layer where kernels may run."""
        if not ops.has_kernel(x, self.precision(x) or x.dtype, (self.trunk,)):
            return self.trunk(x)
        for layer in self.trunk:
            x = ops.convolve(layer, x)
        return x

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C / reduction, H, W) -> (B, 1, H, W)."""
        if torch.jit.is_scripting():
            return self.end_bn(self.project(squeezed))
        else:
            return self.end_bn(ops.convolve(self.project, squeezed))

    def make_constant(self) -> float:
        """The branch's logits become 0, its sigmoid 1/2."""
        zero_(self.project if isinstance(self.end_bn, nn.Identity) else self.end_bn)
        return self.start * self.scale


class BAM(Attention):
    """Amplify (B, C, H, W) by 1 to 2, each channel and place apart; where neutral, weigh it by 2/3 to 4/3."""

    paper = PAPER

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        fuse: str = "add",
        end_norm: bool = False,
        branches: str = "both",
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.fusion = require_choice("fuse", fuse, FUSES)
        self.amplitude = 1 / 3 if neutral else 1.0
        self.keep_depth = keep_depth
        require_choice("branches", branches, BRANCHES)
        self.channel = self.spatial = None
        if branches != "spatial":
            self.channel = BAMChannel(channels, reduction, end_norm, keep_depth, dims, act_layer, **factory).as_part()
        if branches != "channel":
            self.spatial = BAMSpatial(channels, reduction, dilation, end_norm, dims, act_layer, **factory).as_part()

    def join(self, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
        """What amplifies, from the branches' logits (B, C, 1, 1) and (B, 1, H, W), in their precision.

        M(x), values in (0, 1). Where neutral 2 M(x) - 1, values in (-1, 1): as 2 sigmoid(z) - 1 = tanh(z / 2),

            (1 + M) / 1.5 = 1 + (2 M - 1) / 3 = 1 + tanh(z / 2) / 3

        which is exactly 1 at z = 0, and the halving is done on the small logits.
        """
        if channel is None or spatial is None:
            alone = spatial if channel is None else channel
            assert alone is not None
            return torch.tanh(alone * 0.5) if self.neutral else ops.sigmoid(alone)
        if self.neutral:
            channel = channel * 0.5
            spatial = spatial if self.fusion == "mul" else spatial * 0.5
        if self.fusion == "add":
            joined = channel + spatial
        elif self.fusion == "mul":
            joined = channel * spatial
        else:
            joined = torch.maximum(channel, spatial)
        # In place: this is the one full-size map that BAM has to build.
        return ops.tanh_(joined) if self.neutral else ops.sigmoid_(joined)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        channel = None if self.channel is None else self.channel.logits(x)
        spatial = None if self.spatial is None else self.spatial.logits(x)
        return {"joint": 1 + self.amplitude * self.join(channel, spatial).type_as(x)}

    def forward(self, x: Tensor) -> Tensor:
        channel: Tensor | None = None
        spatial: Tensor | None = None
        if self.channel is not None:
            channel = self.channel(x)
        if self.spatial is not None:
            spatial = self.spatial(x)
        if torch.jit.is_scripting():
            return self.amplify(x, channel, spatial)
        else:
            return self.amplify_at_once(x, channel, spatial)

    def amplify(self, x: Tensor, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
        """`x` amplified by what the branches' logits say."""
        return ops.amplify(x, self.join(channel, spatial).type_as(x), self.amplitude)

    def amplify_at_once(self, x: Tensor, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
        """The same, by the kernel where it knows this form and runs on `x`."""
        known = self.fusion == "add" and not self.keep_depth and not torch.compiler.is_compiling()
        if channel is None or spatial is None or not known or not chosen(x, (), channel):
            return self.amplify(x, channel, spatial)
        from zoo.attention.kernels.gated import amplify

        return amplify(x, channel, spatial, self.amplitude, self.neutral)

    def make_constant(self) -> float:
        """M becomes sigmoid(0) = 1/2, so the published form multiplies by 3/2.

        With `fuse="max"` the branch that is the larger one everywhere after the first step learns alone from there.
        """
        if self.spatial is not None:
            self.spatial.make_constant()
        # In a product the other branch has to stay, or neither would get a gradient.
        if self.channel is not None and (self.spatial is None or self.fusion != "mul"):
            self.channel.make_constant()
        return 1.0 if self.neutral else 1.5
