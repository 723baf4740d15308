"""The passes over maps whose places lie side by side: `x` (images, channels, places). As in channels_last.py."""

import numpy as np
import torch

from zoo.attention.kernels.channels_last import BLOCK
from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.scalars import maximum, narrow, sigmoid, widen

FORMATS = {4: torch.contiguous_format, 5: torch.contiguous_format}


@compiled
def pool_space(start, stop, x, mean_c, top_c):
    """The mean and the maximum of each channel."""
    _, channels, places = x.shape
    none, least = mean_c.dtype.type(0), mean_c.dtype.type(-np.inf)
    for n in range(start, stop):
        for c in range(channels):
            values = x[n, c]
            total, top = none, least
            for p in range(places):
                value = widen(values[p])
                total += value
                top = maximum(top, value)
            mean_c[n, c] = total / places
            top_c[n, c] = top


@compiled
def pool_channels(start, stop, x, gate_c, mean_s, top_s):
    """The mean and the maximum of each place, of `x * gate_c`."""
    _, channels, places = x.shape
    block = np.empty_like(mean_s[0])
    for n in range(start, stop):
        mean, top = mean_s[n], top_s[n]
        mean[:] = 0
        top[:] = -np.inf
        for first in range(0, channels, BLOCK):
            block[:] = 0
            for c in range(first, min(first + BLOCK, channels)):
                values, gate = x[n, c], gate_c[n, c]
                for p in range(places):
                    value = widen(values[p]) * gate
                    block[p] += value
                    top[p] = maximum(top[p], value)
            for p in range(places):
                mean[p] += block[p]
        for p in range(places):
            mean[p] /= channels


@compiled
def weigh(start, stop, x, gate_c, gate_s, y):
    """`y = x * gate_c * gate_s`."""
    _, channels, places = x.shape
    for n in range(start, stop):
        here = gate_s[n]
        for c in range(channels):
            values, out, gate = x[n, c], y[n, c], gate_c[n, c]
            for p in range(places):
                out[p] = narrow(widen(values[p]) * gate * here[p], out[p])


@compiled
def gradient_of_gate_s(start, stop, dy, x, gate_c, top_s, d_gate_s, ties_s):
    """And how many channels of a place share its maximum of `x * gate_c`."""
    _, channels, places = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    block = np.empty_like(top_s[0])
    for n in range(start, stop):
        top, d_gate, ties = top_s[n], d_gate_s[n], ties_s[n]
        d_gate[:] = 0
        ties[:] = 0
        for first in range(0, channels, BLOCK):
            block[:] = 0
            for c in range(first, min(first + BLOCK, channels)):
                values, slopes, gate = x[n, c], dy[n, c], gate_c[n, c]
                for p in range(places):
                    value = widen(values[p]) * gate
                    block[p] += widen(slopes[p]) * value
                    ties[p] += one if value == top[p] else none
            for p in range(places):
                d_gate[p] += block[p]


@compiled
def gradient_of_gate_c(start, stop, dy, x, gate_c, gate_s, top_s, each_s, share_s, top_c, d_gate_c, ties_c):
    """And how many places of a channel share its maximum of `x`."""
    _, channels, places = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    for n in range(start, stop):
        here, top, each, share = gate_s[n], top_s[n], each_s[n], share_s[n]
        for c in range(channels):
            values, slopes, gate, peak = x[n, c], dy[n, c], gate_c[n, c], top_c[n, c]
            total, ties = none, none
            for p in range(places):
                value = widen(values[p])
                slope = widen(slopes[p]) * here[p] + each[p] + share[p] * (one if value * gate == top[p] else none)
                total += slope * value
                ties += one if value == peak else none
            d_gate_c[n, c] = total
            ties_c[n, c] = ties


@compiled
def gradient_of_x(start, stop, dy, x, gate_c, gate_s, top_s, each_s, share_s, top_c, each_c, share_c, dx):
    """The gradient of all of CBAM; see channels_last.py."""
    _, channels, places = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    for n in range(start, stop):
        here, top, each, share = gate_s[n], top_s[n], each_s[n], share_s[n]
        for c in range(channels):
            values, slopes, out, gate = x[n, c], dy[n, c], dx[n, c], gate_c[n, c]
            peak, each_place, share_place = top_c[n, c], each_c[n, c], share_c[n, c]
            for p in range(places):
                value = widen(values[p])
                slope = widen(slopes[p]) * here[p] + each[p] + share[p] * (one if value * gate == top[p] else none)
                slope = slope * gate + each_place + share_place * (one if value == peak else none)
                out[p] = narrow(slope, out[p])


@compiled
def mean_of_space(start, stop, x, mean_c):
    """The mean of each channel."""
    _, channels, places = x.shape
    for n in range(start, stop):
        for c in range(channels):
            values, total = x[n, c], mean_c.dtype.type(0)
            for p in range(places):
                total += widen(values[p])
            mean_c[n, c] = total / places


@compiled
def means_of_strips(start, stop, x, rows, columns):
    """The mean of each row (images, channels, height) and of each column (images, channels, width) of a channel."""
    (_, channels, height), width = rows.shape, columns.shape[2]
    for n in range(start, stop):
        for c in range(channels):
            column = columns[n, c]
            column[:] = 0
            for h in range(height):
                first, total = h * width, rows.dtype.type(0)
                values = x[n, c, first : first + width]
                for w in range(width):
                    value = widen(values[w])
                    total += value
                    column[w] += value
                rows[n, c, h] = total / width
            for w in range(width):
                column[w] /= height


@compiled
def weigh_channels(start, stop, x, gate_c, y):
    """`y = x * gate_c`."""
    _, channels, places = x.shape
    for n in range(start, stop):
        for c in range(channels):
            values, out, gate = x[n, c], y[n, c], gate_c[n, c]
            for p in range(places):
                out[p] = narrow(widen(values[p]) * gate, out[p])


@compiled
def gradient_of_channels(start, stop, dy, x, d_gate_c):
    """That of `gate_c` in `y = x * gate_c`."""
    _, channels, places = x.shape
    for n in range(start, stop):
        for c in range(channels):
            values, slopes, total = x[n, c], dy[n, c], d_gate_c.dtype.type(0)
            for p in range(places):
                total += widen(values[p]) * widen(slopes[p])
            d_gate_c[n, c] = total


@compiled
def weigh_and_add(start, stop, dy, gate_c, each_c, dx):
    """`dx = dy * gate_c + each_c`."""
    _, channels, places = dy.shape
    for n in range(start, stop):
        for c in range(channels):
            slopes, out, gate, each = dy[n, c], dx[n, c], gate_c[n, c], each_c[n, c]
            for p in range(places):
                out[p] = narrow(widen(slopes[p]) * gate + each, out[p])


@compiled
def amplify(start, stop, x, logits_c, logits_s, amplitude, neutral, y):
    """`y = x * (1 + amplitude * (span * sigmoid(logits_c + logits_s) + 1 - span))`, where neutral with a span of 2.

    Here and below what is of channels is (images, channels, 1), of places (images, 1, places), as a map broadcasts.
    """
    _, channels, places = x.shape
    one = logits_c.dtype.type(1)
    span = one + neutral
    for n in range(start, stop):
        here = logits_s[n, 0]
        for c in range(channels):
            values, out, logits = x[n, c], y[n, c], logits_c[n, c, 0]
            for p in range(places):
                gate = sigmoid(logits + here[p]) * span + (one - span)
                out[p] = narrow(widen(values[p]) * (one + amplitude * gate), out[p])


@compiled
def gradients_of_amplify(start, stop, dy, x, logits_c, logits_s, amplitude, neutral, dx, d_logits_c, d_logits_s):
    """All three of them."""
    _, channels, places = x.shape
    one = logits_c.dtype.type(1)
    span = one + neutral
    block = np.empty_like(d_logits_s[0, 0])
    for n in range(start, stop):
        here, d_here = logits_s[n, 0], d_logits_s[n, 0]
        d_here[:] = 0
        for first in range(0, channels, BLOCK):
            block[:] = 0
            for c in range(first, min(first + BLOCK, channels)):
                values, slopes, out, logits = x[n, c], dy[n, c], dx[n, c], logits_c[n, c, 0]
                total = d_logits_c.dtype.type(0)
                for p in range(places):
                    open_by, slope = sigmoid(logits + here[p]), widen(slopes[p])
                    out[p] = narrow(slope * (one + amplitude * (open_by * span + (one - span))), out[p])
                    slope *= widen(values[p]) * (amplitude * span) * (open_by * (one - open_by))
                    block[p] += slope
                    total += slope
                d_logits_c[n, c, 0] = total
            for p in range(places):
                d_here[p] += block[p]


@compiled
def weigh_sum(start, stop, x, gate_c, gate_s, y):
    """`y = x * (gate_c + gate_s)`."""
    _, channels, places = x.shape
    for n in range(start, stop):
        here = gate_s[n, 0]
        for c in range(channels):
            values, out, gate = x[n, c], y[n, c], gate_c[n, c, 0]
            for p in range(places):
                out[p] = narrow(widen(values[p]) * (gate + here[p]), out[p])


@compiled
def gradients_of_weigh_sum(start, stop, dy, x, gate_c, gate_s, dx, d_gate_c, d_gate_s):
    """All three of them."""
    _, channels, places = x.shape
    block = np.empty_like(d_gate_s[0, 0])
    for n in range(start, stop):
        here, d_here = gate_s[n, 0], d_gate_s[n, 0]
        d_here[:] = 0
        for first in range(0, channels, BLOCK):
            block[:] = 0
            for c in range(first, min(first + BLOCK, channels)):
                values, slopes, out, gate = x[n, c], dy[n, c], dx[n, c], gate_c[n, c, 0]
                total = d_gate_c.dtype.type(0)
                for p in range(places):
                    slope = widen(slopes[p])
                    out[p] = narrow(slope * (gate + here[p]), out[p])
                    slope *= widen(values[p])
                    block[p] += slope
                    total += slope
                d_gate_c[n, c, 0] = total
            for p in range(places):
                d_here[p] += block[p]


@compiled
def weigh_strips(start, stop, x, rows, columns, y):
    """`y = x * rows * columns` for `rows` (images, channels, height) and `columns` (images, channels, width)."""
    (_, channels, height), width = rows.shape, columns.shape[2]
    for n in range(start, stop):
        for c in range(channels):
            column = columns[n, c]
            for h in range(height):
                row, first = rows[n, c, h], h * width
                values, out = x[n, c, first : first + width], y[n, c, first : first + width]
                for w in range(width):
                    out[w] = narrow(widen(values[w]) * (row * column[w]), out[w])


@compiled
def gradients_of_weigh_strips(start, stop, dy, x, rows, columns, dx, d_rows, d_columns):
    """All three of them."""
    (_, channels, height), width = rows.shape, columns.shape[2]
    for n in range(start, stop):
        for c in range(channels):
            column, d_column = columns[n, c], d_columns[n, c]
            d_column[:] = 0
            for h in range(height):
                row, first, total = rows[n, c, h], h * width, d_rows.dtype.type(0)
                values, slopes = x[n, c, first : first + width], dy[n, c, first : first + width]
                out = dx[n, c, first : first + width]
                for w in range(width):
                    slope = widen(slopes[w])
                    out[w] = narrow(slope * (row * column[w]), out[w])
                    slope *= widen(values[w])
                    total += slope * column[w]
                    d_column[w] += slope * row
                d_rows[n, c, h] = total
