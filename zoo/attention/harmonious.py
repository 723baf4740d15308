"""HA, harmonious attention: Li et al. 2018, arXiv 1802.08122, section 3.1.

    S = c(up(c(mean over channels)))                    soft, spatial: 3x3 with stride 2, bilinear, 1x1; (B, 1, H, W)
    C = c(c(mean over space))                           soft, channel: C -> C / 16 -> C; (B, C, 1, 1)
    A = sigmoid(c(S * C)),  y = x * A                   1x1, C -> C; (B, C, H, W); 4/3 A where neutral
    t = tanh(W (mean over space) + b)                   hard: where each of T regions lies, (B, T, 2)

`c` is convolution, batch norm and ReLU. The ReLU in front of the sigmoid keeps the soft gate in [1/2, 1). A region
is a crop of fixed scale, all of the width and 1 / T of the height, moved by t in units of half the map; W starts at
0 and b spreads the regions over the height. All bilinear sampling aligns corners, as the paper's framework did
(torchreid leaves that of its crops to PyTorch's default, which has changed since). Any map size works; an export with
dynamic sizes wants at least 3 places a side.
"""

import math
from functools import partial
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.arguments import require_positive
from zoo.attention.contract import Attention, Composable, Factory
from zoo.attention.excitation import hidden_width
from zoo.attention.gate import Gate
from zoo.attention.norms import GateBatchNorm2d
from zoo.attention.precision import at_least_fp32, in_full_precision

START = 0.75
"""The middle of the range of `sigmoid(relu(x))`, where the gates of a warm start begin."""
PAPER = "HA, harmonious attention: Li et al. 2018, arXiv 1802.08122"


def _coordinates(line: Tensor) -> Tensor:
    """Where the places of each line (B, N) lie between its ends, -1 to 1; 0 for one place alone: (B, 1, N)."""
    # Counted by tensors, so that an export does not fix the size.
    place = torch.ones_like(line).cumsum(1) - 1
    return ((2 * place - place[:, -1:]) / place[:, -1:].clamp(min=1)).unsqueeze(1)


def _settle(norm: GateBatchNorm2d) -> float:
    """Make `sigmoid(relu(norm(x)))` the constant START, and return it as it is rounded.

    At 1/2 the ReLU would sit at zero and pass no gradient, now or ever.
    """
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(math.log(3))
        return torch.sigmoid(norm.bias[0]).item()


class HASpatial(Gate):
    """S above; alone, a gate that weighs each place of (B, C, H, W)."""

    paper = PAPER
    weighs = "spatial"
    start = START

    def __init__(self, channels: int, neutral: bool = False, **factory: Unpack[Factory]) -> None:
        super().__init__(neutral, **factory)
        self.conv1 = nn.Conv2d(1, 1, 3, stride=2, padding=1, **factory)
        self.bn1 = GateBatchNorm2d(1, **factory)
        self.conv2 = nn.Conv2d(1, 1, 1, **factory)
        self.bn2 = GateBatchNorm2d(1, **factory)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W)."""
        return ops.pool_channels(x, self.precision(x), maximum=False)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, 1, H, W) -> the same shape, values of at least 0."""
        y = F.relu(self.bn1(self.conv1(squeezed)))
        y = F.interpolate(y, size=squeezed.shape[2:], mode="bilinear", align_corners=True)
        return F.relu(self.bn2(self.conv2(y)))

    def make_constant(self) -> float:
        """The sigmoid becomes 3/4."""
        return _settle(self.bn2) * self.scale


class HAChannel(Gate):
    """C above; alone, a gate that weighs each channel of (B, C, H, W)."""

    paper = PAPER
    weighs = "channel"
    start = START

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        hidden = hidden_width(channels, reduction)
        self.conv1 = nn.Conv2d(channels, hidden, 1, **factory)
        self.bn1 = GateBatchNorm2d(hidden, **factory)
        self.conv2 = nn.Conv2d(hidden, channels, 1, **factory)
        self.bn2 = GateBatchNorm2d(channels, **factory)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return ops.mean_over_space(x, [2, 3], self.precision(x))

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same shape, values of at least 0."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(squeezed))))))

    def make_constant(self) -> float:
        """The sigmoid becomes 3/4."""
        return _settle(self.bn2) * self.scale


class SoftAttention(Attention):
    """Weigh each value of (B, C, H, W) by 1/2 to 1; where neutral by 2/3 to 4/3."""

    paper = PAPER

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.scale = 1 / START if neutral else 1.0
        self.spatial = HASpatial(channels, **factory).as_part()
        self.channel = HAChannel(channels, reduction, **factory).as_part()
        self.conv = nn.Conv2d(channels, channels, 1, **factory)
        self.bn = GateBatchNorm2d(channels, **factory)

    def join(self, spatial: Tensor, channel: Tensor) -> Tensor:
        """S (B, 1, H, W) and C (B, C, 1, 1) -> A (B, C, H, W), values in [1/2, 1), in the parameters' precision."""
        if torch.jit.is_scripting():
            return self._join(spatial, channel)
        else:
            return in_full_precision(partial(self._join, channel=channel), spatial)

    def _join(self, spatial: Tensor, channel: Tensor) -> Tensor:
        # A 1x1 convolution of an outer product is an outer product, W (S C) = S (W C): C^2 products an image, not a
        # place.
        mixed, bias = F.linear(channel.flatten(1), self.conv.weight.flatten(1)).view_as(channel), self.conv.bias
        assert bias is not None
        return ops.sigmoid(F.relu(self.bn(torch.addcmul(bias.view(-1, 1, 1), spatial, mixed))))

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {"joint": self.scale * self.join(self.spatial.logits(x), self.channel.logits(x)).type_as(x)}

    def forward(self, x: Tensor) -> Tensor:
        return ops.multiply(x, self.join(self.spatial(x), self.channel(x)).type_as(x), self.scale)

    def make_constant(self) -> float:
        """The sigmoid becomes 3/4."""
        return _settle(self.bn) * self.scale


class HardAttention(Composable):
    """Find `regions` regions in (B, C, H, W) and crop them; as a part, say where they lie.

    It multiplies nothing, so its neutral form is its published one.
    """

    paper = PAPER

    def __init__(
        self,
        channels: int,
        regions: int = 4,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.regions = require_positive("regions", regions)
        self.fc = nn.Linear(channels, 2 * regions, **factory)
        nn.init.zeros_(self.fc.weight)
        # Across: the middle. Down: -3/4, -1/4, 1/4, 3/4 for four regions.
        start = [coordinate for i in range(regions) for coordinate in (0.0, (2 * i + 1) / regions - 1)]
        with torch.no_grad():
            self.fc.bias.copy_(torch.tensor(start))

    def locate(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, 2): the centre (across, down) of each region, in (-1, 1) from edge to edge."""
        mean = ops.mean_over_space(x, [2, 3], self.precision(x)).flatten(1)
        if torch.jit.is_scripting():
            centres = torch.tanh(self.fc(mean))
        else:
            centres = torch.tanh(in_full_precision(self.fc, mean))
        return centres.unflatten(1, (self.regions, 2))

    def crop(self, x: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
        """The regions of `x` (B, C, H, W) around `centres` (B, T, 2): (B * T, C, height, width), an image's in a row.

        Each is sampled at the size of `x` and then resized, as in torchreid. What lies outside of `x` is 0.
        """
        # Coordinates in bf16 would be off by whole places.
        source, centres = at_least_fp32(x), at_least_fp32(centres)
        across = _coordinates(source[:, 0, 0]) + centres[:, :, :1]  # (B, T, W)
        down = _coordinates(source[:, 0, :, 0]) / self.regions + centres[:, :, 1:]  # (B, T, H)
        grid = torch.stack(torch.broadcast_tensors(across.unsqueeze(2), down.unsqueeze(3)), -1)  # (B, T, H, W, 2)
        # The regions lie below each other in one grid an image, so that `x` is not copied for each.
        crops = F.grid_sample(source, grid.flatten(1, 2), align_corners=True)  # (B, C, T * H, W)
        crops = crops.unflatten(2, (self.regions, -1)).transpose(1, 2).flatten(0, 1)
        crops = F.interpolate(crops, size=[height, width], mode="bilinear", align_corners=True)
        return ops.laid_out_as(crops.type_as(x), x)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """None: it moves values and multiplies none."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, C, H, W): the regions of `x`, each as large as `x`; as a part `locate(x)`."""
        centres = self.locate(x)
        if self.part:
            return centres
        return self.crop(x, centres, x.shape[2], x.shape[3]).unflatten(0, (-1, self.regions))

    def make_constant(self) -> float:
        """1, the product of no gates: there is nothing to set."""
        return 1.0


class HarmoniousAttention(Attention):
    """Both: weigh (B, C, H, W) and say where its regions lie."""

    paper = PAPER

    def __init__(
        self,
        channels: int,
        regions: int = 4,
        reduction: int = 16,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.soft = SoftAttention(channels, reduction, neutral, **factory)
        self.hard = HardAttention(channels, regions, **factory).as_part()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the weighed map, the same shape, and the regions' centres (B, T, 2)."""
        return self.soft(x), self.hard(x)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return self.soft.gates(x)

    def make_constant(self) -> float:
        """The soft gate becomes constant; the regions stay as they are."""
        return self.soft.make_constant()
