"""The batch norm behind CBAM's convolution, of one plane, forward and backward.

PyTorch's is made for many channels and takes as long as a pass over a small map. Logits and slopes are (images,
places), each number of the plane is an array of one, as PyTorch keeps it. Sums are in fp64: squares lose nothing.
"""

import math

from zoo.attention.kernels.compiled import compiled


@compiled
def moments(start, stop, logits, sums):
    """Of each image the sum and the sum of squares, (images, 2)."""
    for n in range(start, stop):
        first, second = 0.0, 0.0
        for value in logits[n]:
            wide = value * 1.0
            first += wide
            second += wide * wide
        sums[n, 0] = first
        sums[n, 1] = second


@compiled
def norm_by_batch(sums, count, momentum, eps, running_mean, running_var, mean, invstd, new_mean, new_var):
    """What a batch of `count` logits is normed by, from their moments, and the running statistics after it."""
    average = sums[:, 0].sum() / count
    variance = sums[:, 1].sum() / count - average * average
    variance = 0.0 if variance < 0.0 else variance  # and a NaN stays
    mean[0] = average
    invstd[0] = 1 / math.sqrt(variance + eps)
    new_mean[0] = (1 - momentum) * running_mean[0] + momentum * average
    new_var[0] = (1 - momentum) * running_var[0] + momentum * variance * (count / (count - 1))


@compiled
def norm_by_history(running_var, eps, invstd):
    """By what the running statistics multiply."""
    invstd[0] = 1 / math.sqrt(running_var[0] + eps)


@compiled
def moments_of_slopes(start, stop, slopes, logits, mean, invstd, sums):
    """Of each image the sum of slopes, and of slopes times normed logits, (images, 2)."""
    for n in range(start, stop):
        first, second = 0.0, 0.0
        for p in range(slopes.shape[1]):
            wide = slopes[n, p] * 1.0
            first += wide
            second += wide * ((logits[n, p] - mean[0]) * invstd[0])
        sums[n, 0] = first
        sums[n, 1] = second


@compiled
def gradients_of_norm(sums, d_bias, d_weight):
    """From the moments of slopes."""
    d_bias[0] = sums[:, 0].sum()
    d_weight[0] = sums[:, 1].sum()


@compiled
def slopes_of_logits(start, stop, slopes, logits, mean, invstd, weight, d_bias, d_weight, count):
    """From those of what the norm returned, in their place.

    Of a batch of `count` logits each moves the statistics of all; without one `count` is 0.
    """
    none = invstd.dtype.type(0)
    by = weight[0] * invstd[0]
    each = d_bias[0] / count if count else none
    share = d_weight[0] / count if count else none
    for n in range(start, stop):
        for p in range(slopes.shape[1]):
            slope = slopes[n, p]
            if count:
                slope -= each + (logits[n, p] - mean[0]) * invstd[0] * share
            slopes[n, p] = slope * by
