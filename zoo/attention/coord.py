"""Coordinate attention: Hou et al. 2021, arXiv 2103.02907, equations 4-9.

    f  = hardswish(BN(W1 [mean over W; mean over H]))     (B, C / r, H + W), both strips through one layer
    y  = x * sigmoid(Wh f[:H]) * sigmoid(Ww f[H:])        a gate a row times a gate a column

As the authors' code: convolutions with biases, C / r of at least 8 channels, r = 32. timm's CoordAttn is the same
formula, by default with other widths and no biases; this one keeps the gate in fp32 under autocast and can be made
constant.
"""

from functools import partial

import torch
from torch import Tensor, nn

from zoo.attention.excitation import hidden_width
from zoo.attention.gate import GateBatchNorm2d, in_full_precision, zero_


class CoordAttention(nn.Module):
    """Weigh each row and each column of each channel of (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        act_layer: type[nn.Module] = nn.Hardswish,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = max(8, hidden_width(channels, reduction))
        self.conv = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.bn = GateBatchNorm2d(hidden, device=device, dtype=dtype)
        self.act = act_layer()
        self.rows = nn.Conv2d(hidden, channels, 1, device=device, dtype=dtype)
        self.columns = nn.Conv2d(hidden, channels, 1, device=device, dtype=dtype)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + W, 1): the mean of each row, then of each column."""
        dtype = self.conv.weight.dtype
        rows, columns = x.mean(3, keepdim=True, dtype=dtype), x.mean(2, keepdim=True, dtype=dtype)
        return torch.cat((rows, columns.transpose(2, 3)), 2)

    def excite(self, squeezed: Tensor, height: int) -> Tensor:
        """(B, C, H + W, 1) -> (B, C, H, W), values in (0, 1)."""
        strips = self.act(self.bn(self.conv(squeezed)))
        rows = torch.sigmoid(self.rows(strips[:, :, :height]))
        return rows * torch.sigmoid(self.columns(strips[:, :, height:])).transpose(2, 3)

    def gate(self, x: Tensor) -> Tensor:
        """The gate of `x` (B, C, H, W), the same shape, values in (0, 1), in the dtype of `x`."""
        squeezed, height = self.squeeze(x), x.shape[2]
        if torch.jit.is_scripting():
            return self.excite(squeezed, height).to(x.dtype)
        else:
            return in_full_precision(partial(self.excite, height=height), squeezed).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, `x * gate(x)`."""
        return x * self.gate(x)

    def make_constant(self) -> float:
        """The gate becomes sigmoid(0) * sigmoid(0) = 1/4."""
        zero_(self.rows)
        zero_(self.columns)
        return 0.25
