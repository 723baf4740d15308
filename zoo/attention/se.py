"""SE, squeeze-and-excitation: Hu et al. 2018, arXiv 1709.01507, equations 2-4.

    z = mean over space of x                 squeeze
    s = sigmoid(W2 relu(W1 z + b1) + b2)     excitation
    y = s * x                                scale, 2 s * x where neutral

The authors' networks have biases in both layers; most re-implementations, and the paper's formula, have none
(`bias=False`). The hidden width is C / reduction as it is, not rounded to a multiple of 8 as timm does.
"""

from torch import Tensor

from zoo.attention import ops
from zoo.attention.excitation import ChannelExcitation


class SqueezeExcite(ChannelExcitation):
    """Weigh each channel of (B, C, H, W) by what its mean and the other channels' means say."""

    paper = "SE, squeeze-and-excitation: Hu et al. 2018, arXiv 1709.01507"

    def squeeze(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return ops.mean_over_space(x, self.axes, self.fc1.weight.dtype)

    def excite(self, squeezed: Tensor) -> Tensor:
        """(B, C, 1, 1) -> the same shape."""
        # A linear layer acts on the last axis, so the channels (axis 1) go there and back.
        return self.fc2(self.act(self.fc1(squeezed.transpose(1, -1)))).transpose(1, -1)
