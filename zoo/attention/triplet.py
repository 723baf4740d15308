"""Triplet attention: Misra et al. 2021, arXiv 2010.03045, equations 1 and 2.

    g(u) = sigmoid(BN(conv7x7([max of u; mean of u])))     pooled along one axis, over the plane of the other two
    y    = (x g_HW(x) + x g_CW(x) + x g_HC(x)) / 3

Each branch is CBAM's spatial gate on a rotated tensor: one sees height and width, one channels and width, one height
and channels. As there, the convolution reads [mean, max] where the authors' reads [max, mean], and the batch norm
has PyTorch's momentum of 0.1 instead of 0.01.
"""

import torch
from torch import Tensor, nn

from zoo.attention.cbam import SpatialGate


class TripletAttention(nn.Module):
    """Weigh (B, C, H, W) by the mean of three gates, each over two of its axes."""

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        norm: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.height_width = SpatialGate(kernel_size, norm, device=device, dtype=dtype)
        self.channel_width = SpatialGate(kernel_size, norm, device=device, dtype=dtype)
        self.height_channel = SpatialGate(kernel_size, norm, device=device, dtype=dtype)

    def gate(self, x: Tensor) -> Tensor:
        """The mean of the three gates of `x` (B, C, H, W), the same shape, values in (0, 1), in the dtype of `x`."""
        plane = torch.sigmoid(self.height_width.logits(x))  # (B, 1, H, W)
        # The axis that a spatial gate pools is axis 1, so height or width changes places with the channels.
        across = torch.sigmoid(self.channel_width.logits(x.transpose(1, 2))).transpose(1, 2)  # (B, C, 1, W)
        down = torch.sigmoid(self.height_channel.logits(x.transpose(1, 3))).transpose(1, 3)  # (B, C, H, 1)
        return ((plane + across + down) / 3).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, `x * gate(x)`."""
        return x * self.gate(x)

    def make_constant(self) -> float:
        """The gate becomes (1/2 + 1/2 + 1/2) / 3 = 1/2."""
        for branch in (self.height_width, self.channel_width, self.height_channel):
            branch.make_constant()
        return 0.5
