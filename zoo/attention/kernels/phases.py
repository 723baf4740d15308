"""CBAM and SE image by image: the passes over a map one after another, while it is in the cache.

Where channels lie side by side `far` is None, else True: of a branch upon None numba compiles one side alone, as it
does not of others. `scale`, which multiplies a sigmoid, is an array of one number.
"""

from zoo.attention.kernels import channels_last, contiguous
from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.convolution import slide, slide_back
from zoo.attention.kernels.excitation import close_channels, open_channels
from zoo.attention.kernels.scalars import sigmoid


@compiled
def cbam_forward(
    start, stop, x, far, begins, ends, w1, b1, w2, b2, scale, taps, norm,
    pooled, hidden, gate_c, planes, logits, gate_s, y,
):  # fmt: skip
    """CBAM, or one end of it.

    It begins with the channel gate, the planes that this leaves and, unless `taps` is None, their convolution. It ends
    with the gate of the logits, normed by `norm` (mean, 1 / standard deviation, weight, bias; each an array of one
    number), and the map weighed by both gates.
    """
    flat, (mean, invstd, weight, bias) = planes.reshape(2, len(x), -1), norm
    by = invstd[0] * weight[0]
    for n in range(start, stop):
        if begins:
            if far is None:
                channels_last.pool_space(n, n + 1, x, pooled[0], pooled[1])
            else:
                contiguous.pool_space(n, n + 1, x, pooled[0], pooled[1])
            open_channels(n, pooled, w1, b1, w2, b2, scale, hidden, gate_c)
            if far is None:
                channels_last.pool_channels(n, n + 1, x, gate_c, flat[0], flat[1])
            else:
                contiguous.pool_channels(n, n + 1, x, gate_c, flat[0], flat[1])
            if taps is not None:
                slide(n, n + 1, logits, planes, taps)
        if ends:
            gate, values = gate_s[n], logits[n].reshape(-1)
            for p in range(len(gate)):
                gate[p] = sigmoid((values[p] - mean[0]) * by + bias[0]) * scale[0]
            if far is None:
                channels_last.weigh(n, n + 1, x, gate_c, gate_s, y)
            else:
                contiguous.weigh(n, n + 1, x, gate_c, gate_s, y)


@compiled
def slopes_of_gate_s(start, stop, x, far, dy, gate_c, gate_s, planes, scale, slope_s, ties_s):
    """The gradient of the spatial gate's logits, and how many channels of a place share its maximum."""
    top, one = planes.reshape(2, len(x), -1)[1], gate_s.dtype.type(1)
    for n in range(start, stop):
        if far is None:
            channels_last.gradient_of_gate_s(n, n + 1, dy, x, gate_c, top, slope_s, ties_s)
        else:
            contiguous.gradient_of_gate_s(n, n + 1, dy, x, gate_c, top, slope_s, ties_s)
        for p in range(slope_s.shape[1]):
            slope_s[n, p] *= gate_s[n, p] * (one - gate_s[n, p] / scale[0])


@compiled
def cbam_goes_back(
    start, stop, x, far, dy, w1, w2, scale, taps, pooled, hidden, gate_c, planes, gate_s, slope_s, ties_s,
    d_planes, d_taps, d_gate_c, d_hidden, d_pooled, dx,
):  # fmt: skip
    """From the gradient of the convolution's logits, `slope_s`, to all that come before them."""
    shares, tops = d_planes.reshape(2, len(x), -1), planes.reshape(2, len(x), -1)[1]
    ties_c, members = gate_c.copy(), x.size // gate_c.size
    for n in range(start, stop):
        if taps is not None:
            slide_back(n, n + 1, slope_s, planes, taps, d_planes, d_taps)
        # A mean gives each member as much, a maximum those that reach it. None reaches a NaN, so that is infinite or
        # NaN; the passes multiply by 0 or 1, as eager PyTorch does.
        for p in range(members):
            shares[0, n, p] /= gate_c.shape[1]
            shares[1, n, p] /= ties_s[n, p]
        if far is None:
            channels_last.gradient_of_gate_c(
                n, n + 1, dy, x, gate_c, gate_s, tops, shares[0], shares[1], pooled[1], d_gate_c, ties_c
            )
        else:
            contiguous.gradient_of_gate_c(
                n, n + 1, dy, x, gate_c, gate_s, tops, shares[0], shares[1], pooled[1], d_gate_c, ties_c
            )
        close_channels(n, d_gate_c, gate_c, hidden, w1, w2, scale, d_hidden, d_pooled)
        for c in range(gate_c.shape[1]):
            d_pooled[0, n, c] /= members
            d_pooled[1, n, c] /= ties_c[n, c]
        if far is None:
            channels_last.gradient_of_x(
                n, n + 1, dy, x, gate_c, gate_s, tops, shares[0], shares[1], pooled[1], d_pooled[0], d_pooled[1], dx
            )
        else:
            contiguous.gradient_of_x(
                n, n + 1, dy, x, gate_c, gate_s, tops, shares[0], shares[1], pooled[1], d_pooled[0], d_pooled[1], dx
            )


@compiled
def se_at_once(start, stop, x, far, w1, b1, w2, b2, scale, mean, hidden, gate_c, y):
    """SE whole."""
    for n in range(start, stop):
        if far is None:
            channels_last.mean_of_space(n, n + 1, x, mean[0])
        else:
            contiguous.mean_of_space(n, n + 1, x, mean[0])
        open_channels(n, mean, w1, b1, w2, b2, scale, hidden, gate_c)
        if far is None:
            channels_last.weigh_channels(n, n + 1, x, gate_c, y)
        else:
            contiguous.weigh_channels(n, n + 1, x, gate_c, y)


@compiled
def se_goes_back(start, stop, x, far, dy, w1, w2, scale, hidden, gate_c, d_gate_c, d_hidden, d_mean, dx):
    """The gradients of `x`, of the logits (in `d_gate_c`) and of the hidden layer."""
    members = x.size // gate_c.size
    for n in range(start, stop):
        if far is None:
            channels_last.gradient_of_channels(n, n + 1, dy, x, d_gate_c)
        else:
            contiguous.gradient_of_channels(n, n + 1, dy, x, d_gate_c)
        close_channels(n, d_gate_c, gate_c, hidden, w1, w2, scale, d_hidden, d_mean)
        for c in range(gate_c.shape[1]):
            d_mean[0, n, c] /= members
        if far is None:
            channels_last.weigh_and_add(n, n + 1, dy, gate_c, d_mean[0], dx)
        else:
            contiguous.weigh_and_add(n, n + 1, dy, gate_c, d_mean[0], dx)
