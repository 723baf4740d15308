"""The passes over maps whose channels lie side by side: `x` (images, places, channels), images `start` to `stop`.

`gate_c` and all that ends in `_c` is (images, channels), `gate_s` and all that ends in `_s` is (images, places).
Each pass reads every map once. A sum over places is taken in blocks, so that thousands of them cost no digits. A number
written in a loop would be fp64 and all that it meets with it, at half the speed: each has the dtype of the gate.
"""

import numpy as np
import torch

from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.scalars import maximum, narrow, sigmoid, widen

BLOCK = 64
AT_ONCE = 4
"""A sum is read and written once for so many places: one place after another would wait for it. Divides BLOCK."""
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@compiled
def pool_space(start, stop, x, mean_c, top_c):
    """The mean and the maximum of each channel."""
    _, places, channels = x.shape
    block = np.empty_like(mean_c[0])
    for n in range(start, stop):
        mean, top = mean_c[n], top_c[n]
        mean[:] = 0
        top[:] = -np.inf
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places), AT_ONCE):
                rows = x[n, p:]
                if len(rows) >= AT_ONCE:
                    for c in range(channels):
                        total, largest = block[c], top[c]
                        for k in range(AT_ONCE):
                            value = widen(rows[k, c])
                            total += value
                            largest = maximum(largest, value)
                        block[c], top[c] = total, largest
                else:
                    for values in rows:
                        for c in range(channels):
                            value = widen(values[c])
                            block[c] += value
                            top[c] = maximum(top[c], value)
            for c in range(channels):
                mean[c] += block[c]
        for c in range(channels):
            mean[c] /= places


@compiled
def pool_channels(start, stop, x, gate_c, mean_s, top_s):
    """The mean and the maximum of each place, of `x * gate_c`."""
    _, places, channels = x.shape
    none, least = gate_c.dtype.type(0), gate_c.dtype.type(-np.inf)
    for n in range(start, stop):
        gate = gate_c[n]
        for p in range(places):
            values = x[n, p]
            total, top = none, least
            for c in range(channels):
                value = widen(values[c]) * gate[c]
                total += value
                top = maximum(top, value)
            mean_s[n, p] = total / channels
            top_s[n, p] = top


@compiled
def weigh(start, stop, x, gate_c, gate_s, y):
    """`y = x * gate_c * gate_s`."""
    _, places, channels = x.shape
    for n in range(start, stop):
        gate = gate_c[n]
        for p in range(places):
            values, out, here = x[n, p], y[n, p], gate_s[n, p]
            for c in range(channels):
                out[c] = narrow(widen(values[c]) * gate[c] * here, out[c])


@compiled
def gradient_of_gate_s(start, stop, dy, x, gate_c, top_s, d_gate_s, ties_s):
    """And how many channels of a place share its maximum of `x * gate_c`."""
    _, places, channels = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    for n in range(start, stop):
        gate = gate_c[n]
        for p in range(places):
            values, slopes, top = x[n, p], dy[n, p], top_s[n, p]
            total, ties = none, none
            for c in range(channels):
                value = widen(values[c]) * gate[c]
                total += widen(slopes[c]) * value
                ties += one if value == top else none
            d_gate_s[n, p] = total
            ties_s[n, p] = ties


@compiled
def gradient_of_gate_c(start, stop, dy, x, gate_c, gate_s, top_s, each_s, share_s, top_c, d_gate_c, ties_c):
    """And how many places of a channel share its maximum of `x`.

    `each_s` goes from the mean of a place to each of its channels, `share_s` to those that reach its maximum.
    """
    _, places, channels = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    block, counts = np.empty_like(gate_c[0]), np.empty_like(gate_c[0])
    for n in range(start, stop):
        gate, peaks, d_gate, ties = gate_c[n], top_c[n], d_gate_c[n], ties_c[n]
        d_gate[:] = 0
        counts[:] = 0
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places)):
                values, slopes, here = x[n, p], dy[n, p], gate_s[n, p]
                top, each, share = top_s[n, p], each_s[n, p], share_s[n, p]
                for c in range(channels):
                    value = widen(values[c])
                    slope = widen(slopes[c]) * here + each + share * (one if value * gate[c] == top else none)
                    block[c] += slope * value
                    counts[c] += one if value == peaks[c] else none
            for c in range(channels):
                d_gate[c] += block[c]
        ties[:] = counts


@compiled
def gradient_of_x(start, stop, dy, x, gate_c, gate_s, top_s, each_s, share_s, top_c, each_c, share_c, dx):
    """`each_c` goes from the mean of a channel to each of its places, `share_c` to those that reach its maximum."""
    _, places, channels = x.shape
    none, one = gate_c.dtype.type(0), gate_c.dtype.type(1)
    for n in range(start, stop):
        gate, peaks, each_place, share_place = gate_c[n], top_c[n], each_c[n], share_c[n]
        for p in range(places):
            values, slopes, out, here = x[n, p], dy[n, p], dx[n, p], gate_s[n, p]
            top, each, share = top_s[n, p], each_s[n, p], share_s[n, p]
            for c in range(channels):
                value = widen(values[c])
                slope = widen(slopes[c]) * here + each + share * (one if value * gate[c] == top else none)
                slope = slope * gate[c] + each_place[c] + share_place[c] * (one if value == peaks[c] else none)
                out[c] = narrow(slope, out[c])


@compiled
def mean_of_space(start, stop, x, mean_c):
    """The mean of each channel."""
    _, places, channels = x.shape
    block = np.empty_like(mean_c[0])
    for n in range(start, stop):
        mean = mean_c[n]
        mean[:] = 0
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places), AT_ONCE):
                rows = x[n, p:]
                if len(rows) >= AT_ONCE:
                    for c in range(channels):
                        total = block[c]
                        for k in range(AT_ONCE):
                            total += widen(rows[k, c])
                        block[c] = total
                else:
                    for values in rows:
                        for c in range(channels):
                            block[c] += widen(values[c])
            for c in range(channels):
                mean[c] += block[c]
        for c in range(channels):
            mean[c] /= places


@compiled
def means_of_strips(start, stop, x, rows, columns):
    """The mean of each row (images, height, channels) and of each column (images, width, channels) of a channel."""
    (_, height, channels), width = rows.shape, columns.shape[1]
    for n in range(start, stop):
        columns[n] = 0
        for h in range(height):
            row = rows[n, h]
            row[:] = 0
            for w in range(width):
                values, column = x[n, h * width + w], columns[n, w]
                for c in range(channels):
                    value = widen(values[c])
                    row[c] += value
                    column[c] += value
            for c in range(channels):
                row[c] /= width
        for w in range(width):
            column = columns[n, w]
            for c in range(channels):
                column[c] /= height


@compiled
def weigh_channels(start, stop, x, gate_c, y):
    """`y = x * gate_c`."""
    _, places, channels = x.shape
    for n in range(start, stop):
        gate = gate_c[n]
        for p in range(places):
            values, out = x[n, p], y[n, p]
            for c in range(channels):
                out[c] = narrow(widen(values[c]) * gate[c], out[c])


@compiled
def gradient_of_channels(start, stop, dy, x, d_gate_c):
    """That of `gate_c` in `y = x * gate_c`."""
    _, places, channels = x.shape
    block = np.empty_like(d_gate_c[0])
    for n in range(start, stop):
        d_gate = d_gate_c[n]
        d_gate[:] = 0
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places), AT_ONCE):
                rows, slopes = x[n, p:], dy[n, p:]
                if len(rows) >= AT_ONCE:
                    for c in range(channels):
                        total = block[c]
                        for k in range(AT_ONCE):
                            total += widen(rows[k, c]) * widen(slopes[k, c])
                        block[c] = total
                else:
                    for k in range(len(rows)):
                        for c in range(channels):
                            block[c] += widen(rows[k, c]) * widen(slopes[k, c])
            for c in range(channels):
                d_gate[c] += block[c]


@compiled
def weigh_and_add(start, stop, dy, gate_c, each_c, dx):
    """`dx = dy * gate_c + each_c`."""
    _, places, channels = dy.shape
    for n in range(start, stop):
        gate, each = gate_c[n], each_c[n]
        for p in range(places):
            slopes, out = dy[n, p], dx[n, p]
            for c in range(channels):
                out[c] = narrow(widen(slopes[c]) * gate[c] + each[c], out[c])


@compiled
def amplify(start, stop, x, logits_c, logits_s, amplitude, neutral, y):
    """`y = x * (1 + amplitude * (span * sigmoid(logits_c + logits_s) + 1 - span))`, where neutral with a span of 2.

    Here and below what is of channels is (images, 1, channels), of places (images, places, 1), as a map broadcasts.
    """
    _, places, channels = x.shape
    one = logits_c.dtype.type(1)
    span = one + neutral
    for n in range(start, stop):
        logits = logits_c[n, 0]
        for p in range(places):
            values, out, here = x[n, p], y[n, p], logits_s[n, p, 0]
            for c in range(channels):
                gate = sigmoid(logits[c] + here) * span + (one - span)
                out[c] = narrow(widen(values[c]) * (one + amplitude * gate), out[c])


@compiled
def gradients_of_amplify(start, stop, dy, x, logits_c, logits_s, amplitude, neutral, dx, d_logits_c, d_logits_s):
    """All three of them."""
    _, places, channels = x.shape
    one = logits_c.dtype.type(1)
    span = one + neutral
    block = np.empty_like(d_logits_c[0, 0])
    for n in range(start, stop):
        logits, d_logits = logits_c[n, 0], d_logits_c[n, 0]
        d_logits[:] = 0
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places)):
                values, slopes, out, here = x[n, p], dy[n, p], dx[n, p], logits_s[n, p, 0]
                total = d_logits_s.dtype.type(0)
                for c in range(channels):
                    open_by, slope = sigmoid(logits[c] + here), widen(slopes[c])
                    out[c] = narrow(slope * (one + amplitude * (open_by * span + (one - span))), out[c])
                    slope *= widen(values[c]) * (amplitude * span) * (open_by * (one - open_by))
                    block[c] += slope
                    total += slope
                d_logits_s[n, p, 0] = total
            for c in range(channels):
                d_logits[c] += block[c]


@compiled
def weigh_sum(start, stop, x, gate_c, gate_s, y):
    """`y = x * (gate_c + gate_s)`."""
    _, places, channels = x.shape
    for n in range(start, stop):
        gate = gate_c[n, 0]
        for p in range(places):
            values, out, here = x[n, p], y[n, p], gate_s[n, p, 0]
            for c in range(channels):
                out[c] = narrow(widen(values[c]) * (gate[c] + here), out[c])


@compiled
def gradients_of_weigh_sum(start, stop, dy, x, gate_c, gate_s, dx, d_gate_c, d_gate_s):
    """All three of them."""
    _, places, channels = x.shape
    block = np.empty_like(d_gate_c[0, 0])
    for n in range(start, stop):
        gate, d_gate = gate_c[n, 0], d_gate_c[n, 0]
        d_gate[:] = 0
        for first in range(0, places, BLOCK):
            block[:] = 0
            for p in range(first, min(first + BLOCK, places)):
                values, slopes, out, here = x[n, p], dy[n, p], dx[n, p], gate_s[n, p, 0]
                total = d_gate_s.dtype.type(0)
                for c in range(channels):
                    slope = widen(slopes[c])
                    out[c] = narrow(slope * (gate[c] + here), out[c])
                    slope *= widen(values[c])
                    block[c] += slope
                    total += slope
                d_gate_s[n, p, 0] = total
            for c in range(channels):
                d_gate[c] += block[c]


@compiled
def weigh_strips(start, stop, x, rows, columns, y):
    """`y = x * rows * columns` for `rows` (images, height, channels) and `columns` (images, width, channels)."""
    channels = x.shape[2]
    for n in range(start, stop):
        p = 0
        for row in rows[n]:
            for column in columns[n]:
                values, out = x[n, p], y[n, p]
                for c in range(channels):
                    out[c] = narrow(widen(values[c]) * (row[c] * column[c]), out[c])
                p += 1


@compiled
def gradients_of_weigh_strips(start, stop, dy, x, rows, columns, dx, d_rows, d_columns):
    """All three of them."""
    (_, height, channels), width = rows.shape, columns.shape[1]
    for n in range(start, stop):
        d_columns[n] = 0
        d_rows[n] = 0
        for h in range(height):
            row, d_row = rows[n, h], d_rows[n, h]
            for w in range(width):
                column, d_column, p = columns[n, w], d_columns[n, w], h * width + w
                values, slopes, out = x[n, p], dy[n, p], dx[n, p]
                for c in range(channels):
                    slope = widen(slopes[c])
                    out[c] = narrow(slope * (row[c] * column[c]), out[c])
                    slope *= widen(values[c])
                    d_row[c] += slope * column[c]
                    d_column[c] += slope * row[c]
