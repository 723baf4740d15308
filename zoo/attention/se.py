"""SE, squeeze-and-excitation: Hu et al. 2018, arXiv 1709.01507, equations 2-4.

    z = mean over space of x                 squeeze
    s = sigmoid(W2 relu(W1 z + b1) + b2)     excitation
    y = s * x                                scale

The authors' networks have biases in both layers; most re-implementations, and the paper's formula, have none
(`bias=False`). The hidden width is C / reduction as it is, not rounded to a multiple of 8 as timm does.
"""

import torch
from torch import Tensor, nn

from zoo.attention.gate import Gate, hidden_width, wake_, zero_


class SqueezeExcite(Gate):
    """Weigh each channel of (B, C, H, W) by what its mean and the other channels' means say."""

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        act_layer: type[nn.Module] = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels, bias=bias, device=device, dtype=dtype)

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return x.mean((2, 3), dtype=self.fc1.weight.dtype)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C) -> (B, C, 1, 1)."""
        return self.fc2(self.act(self.fc1(squeezed)))[:, :, None, None]

    def make_constant(self) -> float:
        """The gate becomes sigmoid(0) = 1/2."""
        wake_(self.fc1)
        zero_(self.fc2)
        return 0.5
