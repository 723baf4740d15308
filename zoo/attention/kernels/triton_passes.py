"""The passes over maps on a GPU, in Triton: maps in fp32, bf16 or fp16, computed with in fp32.

A map is (images, places, channels), the channels last in memory. Sums over places are taken in parts, a program a part,
and added up behind it in a fixed order: no atomics, so a result is the same each time. Offsets are in 64 bits.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PLACES, CHANNELS, PARTS = 32, 64, 8
"""Of a program: so many places and channels at a time; sums over places are taken in so many parts. Never tuned."""


@triton.jit
def offsets(n, p, c, P, C):
    """Of places `p` and channels `c` of image `n`, a block: counted in 64 bits, as a map may be longer than 2**31."""
    return n.to(tl.int64) * P * C + p.to(tl.int64)[:, None] * C + c[None, :]


@triton.jit
def _places(P, BP: tl.constexpr):
    """Image and places of a program of `by_place`, and which of these there are."""
    blocks = tl.cdiv(P, BP)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks) * BP + tl.arange(0, BP)
    return n, p, p < P


@triton.jit
def _block(P, C, BP: tl.constexpr, BC: tl.constexpr):
    """Image, places and channels of a program of `by_block`, and which of these there are."""
    n, p, pm = _places(P, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    return n, p, c, pm, c < C


@triton.jit
def _part(P, C, PARTS: tl.constexpr, BC: tl.constexpr):
    """Of a program of `by_part`: image; channels, and which there are; first place and end; where its results go."""
    n, part = (tl.program_id(0) // PARTS).to(tl.int64), tl.program_id(0) % PARTS
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    length = tl.cdiv(P, PARTS)
    return n, c, c < C, part * length, tl.minimum((part + 1) * length, P), (n * PARTS + part) * C + c


@triton.jit
def _maximum(best, values, inside, axis: tl.constexpr):
    """Of the best so far and these values: NaN wins, as in PyTorch."""
    top = tl.max(tl.where(inside, values, float("-inf")), axis)
    lost = tl.max(tl.where(inside & (values != values), 1, 0), axis) > 0
    lost = lost | (best != best)
    return tl.where(lost, float("nan"), tl.maximum(best, top))


@triton.jit
def pool_space(x, sums, tops, P, C, PARTS: tl.constexpr, TOP: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """Sum and maximum of each channel over one part of the places."""
    n, c, cm, first, end, own = _part(P, C, PARTS, BC)
    total = tl.zeros((BC,), tl.float32)
    best = tl.full((BC,), float("-inf"), tl.float32)
    for start in range(first, end, BP):
        p = start + tl.arange(0, BP)
        inside = (p < end)[:, None] & cm[None, :]
        v = tl.load(x + offsets(n, p, c, P, C), mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(v, 0)
        if TOP:
            best = _maximum(best, v, inside, 0)
    tl.store(sums + own, total, mask=cm)
    if TOP:
        tl.store(tops + own, best, mask=cm)


@triton.jit
def pool_channels(x, gate_c, means, tops, P, C, BP: tl.constexpr, BC: tl.constexpr):
    """Mean and maximum of each place of the map that the channel gate left."""
    n, p, pm = _places(P, BP)
    total = tl.zeros((BP,), tl.float32)
    best = tl.full((BP,), float("-inf"), tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = pm[:, None] & (c < C)[None, :]
        v = tl.load(x + offsets(n, p, c, P, C), mask=inside, other=0.0).to(tl.float32)
        v = v * tl.load(gate_c + n * C + c, mask=c < C, other=0.0)[None, :]
        total += tl.sum(v, 1)
        best = _maximum(best, v, inside, 1)
    tl.store(means + n * P + p, total / C, mask=pm)
    tl.store(tops + n * P + p, best, mask=pm)


@triton.jit
def weigh(
    x, shortcut, gate_c, gate_s, y, P, C,
    SPATIAL: tl.constexpr, SHORTCUT: tl.constexpr, RELU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The map times its gates, plus the shortcut, through the ReLU: what there is of these."""
    n, p, c, pm, cm = _block(P, C, BP, BC)
    inside, o = pm[:, None] & cm[None, :], offsets(n, p, c, P, C)
    v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
    v = v * tl.load(gate_c + n * C + c, mask=cm, other=0.0)[None, :]
    if SPATIAL:
        v = v * tl.load(gate_s + n * P + p, mask=pm, other=0.0)[:, None]
    if SHORTCUT:
        v += tl.load(shortcut + o, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        v = tl.where(v < 0, 0.0, v)  # NaN stays
    tl.store(y + o, v, mask=inside)


@triton.jit
def gradient_of_gate_s(
    dy, y, x, gate_c, tops, g, found, ties, P, C, RELU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Through the ReLU, which is the shortcut's gradient; that of the spatial gate; how many share its maximum."""
    n, p, pm = _places(P, BP)
    top = tl.load(tops + n * P + p, mask=pm, other=0.0)
    total = tl.zeros((BP,), tl.float32)
    count = tl.zeros((BP,), tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = pm[:, None] & (c < C)[None, :]
        o = offsets(n, p, c, P, C)
        slope = tl.load(dy + o, mask=inside, other=0.0)
        if RELU:
            slope = tl.where(tl.load(y + o, mask=inside, other=0.0).to(tl.float32) <= 0, 0.0, slope)
            tl.store(g + o, slope, mask=inside)
        v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
        v = v * tl.load(gate_c + n * C + c, mask=c < C, other=0.0)[None, :]
        total += tl.sum(slope.to(tl.float32) * v, 1)
        count += tl.sum(tl.where(inside & (v == top[:, None]), 1.0, 0.0), 1)
    tl.store(found + n * P + p, total, mask=pm)
    tl.store(ties + n * P + p, count, mask=pm)


@triton.jit
def _slope_of_weighed(slope, v, q, pm, gate_s, tops, each_s, share_s):
    """The gradient of the map that the channel gate left."""
    gs = tl.load(gate_s + q, mask=pm, other=0.0)[:, None]
    each = tl.load(each_s + q, mask=pm, other=0.0)[:, None]
    share = tl.load(share_s + q, mask=pm, other=0.0)[:, None]
    top = tl.load(tops + q, mask=pm, other=0.0)[:, None]
    return slope * gs + each + tl.where(v == top, 1.0, 0.0) * share


@triton.jit
def gradient_of_gate_c(
    g, x, gate_c, gate_s, tops_s, each_s, share_s, tops_c, found, ties, P, C,
    PARTS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of the channel gate over one part of the places, and how many of them share its maximum."""
    n, c, cm, first, end, own = _part(P, C, PARTS, BC)
    gc, top = tl.load(gate_c + n * C + c, mask=cm, other=0.0), tl.load(tops_c + n * C + c, mask=cm, other=0.0)
    total = tl.zeros((BC,), tl.float32)
    count = tl.zeros((BC,), tl.float32)
    for start in range(first, end, BP):
        p = start + tl.arange(0, BP)
        pm = p < end
        inside, o = pm[:, None] & cm[None, :], offsets(n, p, c, P, C)
        v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(g + o, mask=inside, other=0.0).to(tl.float32)
        slope = _slope_of_weighed(slope, v * gc[None, :], n * P + p, pm, gate_s, tops_s, each_s, share_s)
        total += tl.sum(tl.where(inside, slope * v, 0.0), 0)
        count += tl.sum(tl.where(inside & (v == top[None, :]), 1.0, 0.0), 0)
    tl.store(found + own, total, mask=cm)
    tl.store(ties + own, count, mask=cm)


@triton.jit
def gradient_of_x(
    g, x, gate_c, gate_s, tops_s, each_s, share_s, tops_c, each_c, share_c, dx, P, C, BP: tl.constexpr, BC: tl.constexpr
):
    """All ways to the map: through its product, both means and both maxima."""
    n, p, c, pm, cm = _block(P, C, BP, BC)
    inside, o, r = pm[:, None] & cm[None, :], offsets(n, p, c, P, C), n * C + c
    v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
    gc = tl.load(gate_c + r, mask=cm, other=0.0)[None, :]
    slope = tl.load(g + o, mask=inside, other=0.0).to(tl.float32)
    slope = _slope_of_weighed(slope, v * gc, n * P + p, pm, gate_s, tops_s, each_s, share_s) * gc
    slope += tl.load(each_c + r, mask=cm, other=0.0)[None, :]
    top = tl.load(tops_c + r, mask=cm, other=0.0)[None, :]
    slope += tl.where(v == top, 1.0, 0.0) * tl.load(share_c + r, mask=cm, other=0.0)[None, :]
    tl.store(dx + o, slope, mask=inside)


@triton.jit
def gradient_of_channels(
    dy, y, x, g, found, P, C, RELU: tl.constexpr, PARTS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Of SE: through the ReLU, and the gradient of its gate over one part of the places."""
    n, c, cm, first, end, own = _part(P, C, PARTS, BC)
    total = tl.zeros((BC,), tl.float32)
    for start in range(first, end, BP):
        p = start + tl.arange(0, BP)
        inside, o = (p < end)[:, None] & cm[None, :], offsets(n, p, c, P, C)
        slope = tl.load(dy + o, mask=inside, other=0.0)
        if RELU:
            slope = tl.where(tl.load(y + o, mask=inside, other=0.0).to(tl.float32) <= 0, 0.0, slope)
            tl.store(g + o, slope, mask=inside)
        total += tl.sum(slope.to(tl.float32) * tl.load(x + o, mask=inside, other=0.0).to(tl.float32), 0)
    tl.store(found + own, total, mask=cm)


@triton.jit
def weigh_and_add(g, gate_c, each_c, dx, P, C, BP: tl.constexpr, BC: tl.constexpr):
    """Of SE: through its product, and its mean."""
    n, p, c, pm, cm = _block(P, C, BP, BC)
    inside, o, r = pm[:, None] & cm[None, :], offsets(n, p, c, P, C), n * C + c
    slope = tl.load(g + o, mask=inside, other=0.0).to(tl.float32)
    gc, each = tl.load(gate_c + r, mask=cm, other=0.0), tl.load(each_c + r, mask=cm, other=0.0)
    tl.store(dx + o, slope * gc[None, :] + each[None, :], mask=inside)


@triton.jit
def _sigmoid(z):
    return 1 / (1 + tl.exp(-z))


@triton.jit
def amplify(
    x, shortcut, channel, spatial, y, P, C, amplitude, span,
    SHORTCUT: tl.constexpr, RELU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Of BAM: 1 + amplitude * (span * sigmoid(channel + spatial) - span + 1) times the map; shortcut and ReLU."""
    n, p, c, pm, cm = _block(P, C, BP, BC)
    inside, o = pm[:, None] & cm[None, :], offsets(n, p, c, P, C)
    z = (
        tl.load(channel + n * C + c, mask=cm, other=0.0)[None, :]
        + tl.load(spatial + n * P + p, mask=pm, other=0.0)[:, None]
    )
    v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
    v = v * (1 + amplitude * (span * _sigmoid(z) - (span - 1)))
    if SHORTCUT:
        v += tl.load(shortcut + o, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        v = tl.where(v < 0, 0.0, v)
    tl.store(y + o, v, mask=inside)


@triton.jit
def gradients_of_amplify(
    dy, y, x, channel, spatial, g, dx, d_channel, d_spatial, P, C, amplitude, span,
    RELU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Of BAM, in one pass: of the shortcut, the map, the spatial logits, and the channels' over one block of places."""
    n, p, pm = _places(P, BP)
    zs = tl.load(spatial + n * P + p, mask=pm, other=0.0)[:, None]
    total = tl.zeros((BP,), tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        cm = c < C
        inside, o = pm[:, None] & cm[None, :], offsets(n, p, c, P, C)
        slope = tl.load(dy + o, mask=inside, other=0.0)
        if RELU:
            slope = tl.where(tl.load(y + o, mask=inside, other=0.0).to(tl.float32) <= 0, 0.0, slope)
            tl.store(g + o, slope, mask=inside)
        slope = slope.to(tl.float32)
        s = _sigmoid(tl.load(channel + n * C + c, mask=cm, other=0.0)[None, :] + zs)
        v = tl.load(x + o, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + o, slope * (1 + amplitude * (span * s - (span - 1))), mask=inside)
        of_logits = tl.where(inside, slope * v * (amplitude * span) * s * (1 - s), 0.0)
        total += tl.sum(of_logits, 1)
        tl.store(d_channel + tl.program_id(0).to(tl.int64) * C + c, tl.sum(of_logits, 0), mask=cm)
    tl.store(d_spatial + n * P + p, total, mask=pm)


def by_block(kernel: Any, x: Tensor, *arguments: Any, **options: Any) -> None:
    """Run a program for each block of places and channels of a map (B, P, C)."""
    images, places, channels = x.shape
    grid = (images * triton.cdiv(places, PLACES), triton.cdiv(channels, CHANNELS))
    kernel[grid](*arguments, places, channels, BP=PLACES, BC=CHANNELS, **options)


def by_place(kernel: Any, x: Tensor, *arguments: Any, **options: Any) -> None:
    """Run a program for each block of places, which goes over all channels."""
    images, places, channels = x.shape
    grid = (images * triton.cdiv(places, PLACES),)
    kernel[grid](*arguments, places, channels, BP=PLACES, BC=CHANNELS, **options)


def by_part(kernel: Any, x: Tensor, *arguments: Any, **options: Any) -> None:
    """Run a program for each part of the places, which goes over them, and block of channels."""
    images, places, channels = x.shape
    grid = (images * PARTS, triton.cdiv(channels, CHANNELS))
    kernel[grid](*arguments, places, channels, PARTS=PARTS, BP=PLACES, BC=CHANNELS, **options)


def parts_of(x: Tensor) -> Tensor:
    """Room for one number a channel and part, (B, PARTS, C)."""
    return x.new_empty(len(x), PARTS, x.shape[2], dtype=torch.float32)


def room_for(x: Tensor, *shape: int) -> Tensor:
    """Room for numbers in fp32."""
    return x.new_empty(shape, dtype=torch.float32)
