"""Triplet attention: Misra et al. 2021, arXiv 2010.03045, equations 1 and 2.

    g(u) = sigmoid(BN(conv7x7([max of u; mean of u])))     pooled along one axis, over the plane of the other two
    y    = (x g_HW(x) + x g_CW(x) + x g_HC(x)) / 3         / 1.5 instead where neutral

Each branch is CBAM's spatial gate on a rotated tensor: one sees height and width, one channels and width, one height
and channels. As there, the convolution reads [mean, max] where the authors' reads [max, mean], and the batch norm
has PyTorch's momentum of 0.1 instead of 0.01.
"""

from typing import Unpack

from torch import Tensor

from zoo.attention import ops
from zoo.attention.cbam import SpatialGate
from zoo.attention.contract import Attention, Factory


class TripletAttention(Attention):
    """Weigh (B, C, H, W) by the mean of three gates, each over two of its axes."""

    paper = "Triplet attention: Misra et al. 2021, arXiv 2010.03045"

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        norm: bool = True,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.divisor = 1.5 if neutral else 3.0
        self.height_width = SpatialGate(channels, kernel_size, norm, **factory).as_part()
        self.channel_width = SpatialGate(channels, kernel_size, norm, **factory).as_part()
        self.height_channel = SpatialGate(channels, kernel_size, norm, **factory).as_part()

    def join(self, plane: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """Logits (B, 1, H, W), (B, 1, C, W) and (B, 1, H, C) -> the mean of their gates, where neutral twice that."""
        across, down = ops.sigmoid(across).transpose(1, 2), ops.sigmoid(down).transpose(1, 3)
        return (ops.sigmoid(plane) + across + down) / self.divisor

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        plane, across = self.height_width.logits(x), self.channel_width.logits(x.transpose(1, 2))
        return {"joint": self.join(plane, across, self.height_channel.logits(x.transpose(1, 3))).type_as(x)}

    def forward(self, x: Tensor) -> Tensor:
        # The axis that a spatial gate pools is axis 1, so height or width changes places with the channels.
        plane, across = self.height_width(x), self.channel_width(x.transpose(1, 2))
        return ops.multiply(x, self.join(plane, across, self.height_channel(x.transpose(1, 3))).type_as(x))

    def make_constant(self) -> float:
        """Each sigmoid becomes 1/2, and so does their mean."""
        for branch in (self.height_width, self.channel_width, self.height_channel):
            branch.make_constant()
        return 1.0 if self.neutral else 0.5
