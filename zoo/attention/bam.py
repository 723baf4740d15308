"""BAM, bottleneck attention: Park et al. 2018, arXiv 1807.06514, equations 1-4.

    Mc = FC(relu(BN(FC(mean over space))))                         channel branch, (B, C, 1, 1)
    Ms = conv1x1(3x3 dilated(3x3 dilated(conv1x1(x))))             spatial branch, (B, 1, H, W)
    y  = x * (1 + sigmoid(Mc + Ms))

The paper adds the branches; the authors' code, and with it their published weights, multiplies them
(`fuse="mul"`). Batch norm sits where the code has it, behind the first layer of the channel branch and behind the
first three of the spatial one. The paper's text has one more at the end of each branch, and its CIFAR table counts
it (`end_norm=True`: ResNet-50 24.07 M, ResNeXt-29 34.61 M). Unlike the code, the pooling takes any map size and one
image trains alone (see GateBatchNorm1d).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from zoo.attention.excitation import hidden_width
from zoo.attention.gate import Gate, GateBatchNorm1d, GateBatchNorm2d, require_choice, require_positive, zero_

FUSES = ("add", "mul")
"""How BAM joins its branches: the paper's sum, or the product of the authors' code."""


class BAMChannel(Gate):
    """BAM's channel branch: what the mean of each channel of (B, C, H, W) says about all channels."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        end_norm: bool = False,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.bn = GateBatchNorm1d(hidden, device=device, dtype=dtype)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels, device=device, dtype=dtype)
        self.end_bn = GateBatchNorm1d(channels, device=device, dtype=dtype) if end_norm else nn.Identity()

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return x.mean((2, 3), dtype=self.fc1.weight.dtype)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C) -> (B, C, 1, 1)."""
        return self.end_bn(self.fc2(self.act(self.bn(self.fc1(squeezed)))))[:, :, None, None]

    def make_constant(self) -> float:
        """The branch's logits become 0."""
        zero_(self.fc2 if isinstance(self.end_bn, nn.Identity) else self.end_bn)
        return 0.5


class BAMSpatial(Gate):
    """BAM's spatial branch: two dilated 3x3 convolutions on C / reduction channels of (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        end_norm: bool = False,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        pad = require_positive("dilation", dilation)
        convs = {
            "reduce": nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype),
            "conv1": nn.Conv2d(hidden, hidden, 3, padding=pad, dilation=dilation, device=device, dtype=dtype),
            "conv2": nn.Conv2d(hidden, hidden, 3, padding=pad, dilation=dilation, device=device, dtype=dtype),
        }
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, conv in convs.items():
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as the authors' code
            layers[name] = conv
            layers[f"{name}_bn"] = GateBatchNorm2d(hidden, device=device, dtype=dtype)
            layers[f"{name}_act"] = act_layer()
        self.trunk = nn.Sequential(layers)
        self.project = nn.Conv2d(hidden, 1, 1, device=device, dtype=dtype)
        self.end_bn = GateBatchNorm2d(1, device=device, dtype=dtype) if end_norm else nn.Identity()

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C / reduction, H, W).

        These are full convolutions, so under autocast they run in its precision like the network's own.
        """
        return self.trunk(x).to(self.project.weight.dtype)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C / reduction, H, W) -> (B, 1, H, W)."""
        return self.end_bn(self.project(squeezed))

    def make_constant(self) -> float:
        """The branch's logits become 0."""
        zero_(self.project if isinstance(self.end_bn, nn.Identity) else self.end_bn)
        return 0.5


class BAM(nn.Module):
    """Amplify (B, C, H, W) by 1 to 2, each channel and place apart."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        fuse: str = "add",
        end_norm: bool = False,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.multiply = require_choice("fuse", fuse, FUSES) == "mul"
        self.channel = BAMChannel(channels, reduction, end_norm, act_layer, device, dtype)
        self.spatial = BAMSpatial(channels, reduction, dilation, end_norm, act_layer, device, dtype)

    def gate(self, x: Tensor) -> Tensor:
        """M(x), (B, C, H, W), values in (0, 1), in the dtype of `x`."""
        channel, spatial = self.channel.logits(x), self.spatial.logits(x)
        joined = channel * spatial if self.multiply else channel + spatial
        return joined.sigmoid_().to(x.dtype)  # in place: this is the one full-size map that BAM has to build

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, `x * (1 + M(x))`."""
        return torch.addcmul(x, x, self.gate(x))

    def make_constant(self) -> float:
        """The gate becomes sigmoid(0) = 1/2, so the module multiplies by 3/2."""
        self.spatial.make_constant()
        # In a product the other branch has to stay, or neither would get a gradient.
        if not self.multiply:
            self.channel.make_constant()
        return 1.5
