"""The two layers of SE and of CBAM's channel gate as PyTorch's functions, for a GPU: `W2 relu(W1 z + b1) + b2`.

`pooled` is (pools, images, channels): the means, or the means and the maxima.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear


def excite(pooled: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits (images, channels), and the hidden layer (pools, images, hidden) that the gradient needs."""
    hidden = linear(pooled, w1, b1).relu_()
    # The second layer is linear, so it runs once on the sum, with the bias once for each pool.
    return linear(hidden.sum(0), w2, None if b2 is None else b2 * len(pooled)), hidden


def excite_backward(
    d_logits: Tensor, pooled: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `pooled`, `w1`, `b1`, `w2` and `b2`."""
    d_hidden = torch.ops.aten.threshold_backward((d_logits @ w2).expand_as(hidden), hidden, 0)
    flat = d_hidden.flatten(0, 1)
    d_b2 = d_logits.sum(0) * len(pooled)
    return d_hidden @ w1, flat.T @ pooled.flatten(0, 1), flat.sum(0), d_logits.T @ hidden.sum(0), d_b2


def slope_of_sigmoid(gate: Tensor, scale: float) -> Tensor:
    """The derivative of `gate = scale * sigmoid(z)` by `z`."""
    return gate * (1 - gate / scale)
