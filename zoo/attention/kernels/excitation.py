"""The two layers of SE and of CBAM's channel gate, forward and backward: `W2 relu(W1 z + b1) + b2`, summed over pools.

`pooled` is (pools, images, channels): the means, or the means and the maxima. A bias that is missing is empty.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.maps import numbers
from zoo.attention.kernels.scalars import sigmoid

LARGE = 1 << 16
"""For so many products PyTorch's ten operations are worth their start."""


def excite(pooled: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    """The definition: the logits (images, channels)."""
    hidden = torch.relu(linear(pooled, w1, b1))
    # The second layer is linear, so it runs once on the sum, with the bias once for each pool.
    return linear(hidden.sum(0), w2, None if b2 is None else b2 * len(pooled))


@compiled
def open_channels(n, pooled, w1, b1, w2, b2, scale, hidden, gate_c):
    """The gate of image `n`, `scale` times the sigmoid of its logits, and its hidden layer (pools, images, hidden)."""
    pools, _, channels = pooled.shape
    none = scale.dtype.type(0)
    summed = np.zeros_like(hidden[0, 0])
    for k in range(pools):
        values = pooled[k, n]
        for j in range(len(w1)):
            row, total = w1[j], (b1[j] if len(b1) else none)
            for c in range(channels):
                total += row[c] * values[c]
            total = none if total < none else total  # and a NaN stays
            hidden[k, n, j] = total
            summed[j] += total
    for c in range(channels):
        row, total = w2[c], (b2[c] * pools if len(b2) else none)
        for j in range(len(summed)):
            total += row[j] * summed[j]
        gate_c[n, c] = sigmoid(total) * scale[0]


@compiled
def close_channels(n, d_gate_c, gate_c, hidden, w1, w2, scale, d_hidden, d_pooled):
    """The gradients of image `n`'s logits, in the place of `d_gate_c`, of its hidden layer and of what was pooled."""
    channels, width = w2.shape
    none, one = scale.dtype.type(0), scale.dtype.type(1)
    back = np.zeros(width)
    for c in range(channels):
        slope = d_gate_c[n, c] * (gate_c[n, c] * (one - gate_c[n, c] / scale[0]))
        d_gate_c[n, c] = slope
        row = w2[c]
        for j in range(width):
            back[j] += slope * row[j]
    for k in range(len(hidden)):
        out = d_pooled[k, n]
        out[:] = 0
        for j in range(width):
            d_hidden[k, n, j] = none if hidden[k, n, j] <= none else back[j]
            row, slope = w1[j], d_hidden[k, n, j]
            for c in range(channels):
                out[c] += slope * row[c]


def gradients_of_layers(
    d_logits: Tensor, d_hidden: Tensor, pooled: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Those of `w1`, `b1`, `w2` and `b2`."""
    if pooled.numel() * hidden.shape[2] > LARGE:
        flat = d_hidden.flatten(0, 1)
        return flat.T @ pooled.flatten(0, 1), flat.sum(0), d_logits.T @ hidden.sum(0), d_logits.sum(0) * len(pooled)
    width, channels, new = hidden.shape[2], pooled.shape[2], hidden.new_empty
    found = new(width, channels), new(width), new(channels, width), new(channels)
    add_images(*(numbers(each) for each in (d_logits, d_hidden, pooled, hidden, *found)))
    return found


@compiled
def add_images(d_logits, d_hidden, pooled, hidden, d_w1, d_b1, d_w2, d_b2):
    """The same, image by image, in fp64."""
    (pools, images, width), channels = hidden.shape, pooled.shape[2]
    row = np.empty(channels)
    for j in range(width):
        row[:] = 0
        bias = 0.0
        for k in range(pools):
            for n in range(images):
                slope = d_hidden[k, n, j] * 1.0
                bias += slope
                for c in range(channels):
                    row[c] += slope * pooled[k, n, c]
        d_w1[j] = row
        d_b1[j] = bias
    both = hidden.sum(0)
    for j in range(width):
        row[:] = 0
        for n in range(images):
            seen = both[n, j] * 1.0
            for c in range(channels):
                row[c] += d_logits[n, c] * seen
        d_w2[:, j] = row
    row[:] = 0
    for n in range(images):
        row += d_logits[n]
    for c in range(channels):
        d_b2[c] = row[c] * pools
