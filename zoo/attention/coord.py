"""Coordinate attention: Hou et al. 2021, arXiv 2103.02907, equations 4-9.

    f  = hardswish(BN(W1 [mean over W; mean over H]))     (B, C / r, H + W), both strips through one layer
    y  = x * sigmoid(Wh f[:H]) * sigmoid(Ww f[H:])        a gate a row times a gate a column, each doubled where neutral

As the authors' code: convolutions with biases, C / r of at least 8 channels, r = 32. timm's CoordAttn is the same
formula, by default with other widths and no biases; this one keeps the gate in fp32 under autocast and can be made
constant.
"""

from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.contract import Attention, Factory
from zoo.attention.excitation import hidden_width
from zoo.attention.gate import zero_
from zoo.attention.norms import GateBatchNorm2d
from zoo.attention.precision import in_full_precision


class CoordAttention(Attention):
    """Weigh each row and each column of each channel of (B, C, H, W)."""

    paper = "Coordinate attention: Hou et al. 2021, arXiv 2103.02907"

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        act_layer: type[nn.Module] = nn.Hardswish,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        hidden = max(8, hidden_width(channels, reduction))
        self.conv = nn.Conv2d(channels, hidden, 1, **factory)
        self.bn = GateBatchNorm2d(hidden, **factory)
        self.act = act_layer()
        self.rows = nn.Conv2d(hidden, channels, 1, **factory)
        self.columns = nn.Conv2d(hidden, channels, 1, **factory)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + W, 1): the mean of each row, then of each column."""
        rows, columns = ops.means_of_strips(x, self.precision(x))
        return torch.cat((rows, columns.transpose(2, 3)), 2)

    def excite(self, squeezed: Tensor, height: int) -> tuple[Tensor, Tensor]:
        """(B, C, H + W, 1) -> (B, C, H, 1) and (B, C, 1, W), values in (0, 1), where neutral in (0, 2)."""
        strips = self.act(self.bn(self.conv(squeezed)))
        rows = ops.sigmoid(self.rows(strips[:, :, :height]))
        columns = ops.sigmoid(self.columns(strips[:, :, height:])).transpose(2, 3)
        if self.neutral:
            return 2 * rows, 2 * columns
        return rows, columns

    def rows_and_columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gates of `x` (B, C, H, W), a row's (B, C, H, 1) and a column's (B, C, 1, W), in full precision."""
        squeezed, height = self.squeeze(x), x.shape[2]
        if torch.jit.is_scripting():
            return self.excite(squeezed, height)
        else:
            return in_full_precision(partial(self.excite, height=height), squeezed)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        rows, columns = self.rows_and_columns(x)
        return {"height": rows.type_as(x), "width": columns.type_as(x)}

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows_and_columns(x)
        return ops.weigh_by_strips(x, rows, columns)

    def make_constant(self) -> float:
        """Each sigmoid becomes 1/2, so the published form multiplies by 1/4."""
        zero_(self.rows)
        zero_(self.columns)
        return 1.0 if self.neutral else 0.25
