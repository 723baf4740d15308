"""The ends of residual branches on a GPU: `relu(attention(x) + shortcut)`, in passes of Triton.

Without a shortcut and a ReLU, as in a MobileNet, they are what `zoo::cbam`, `zoo::se` and `zoo::amplify` do on a GPU.
In readings and writings of the map, with shortcut and ReLU: CBAM 5 forward and 9 backward, SE 4 and 6, BAM 3 and 5
besides its branches.
"""

import torch
from torch import Tensor

from zoo.attention.kernels import cbam, se
from zoo.attention.kernels import triton_passes as go
from zoo.attention.kernels.channels_last import FORMATS
from zoo.attention.kernels.convolution import unit_stride
from zoo.attention.kernels.layers import excite, excite_backward, slope_of_sigmoid

aten = torch.ops.aten


def flat(x: Tensor) -> Tensor:
    """A map as (images, places, channels), laid out so; no copy of one whose channels are last in memory."""
    return x.contiguous(memory_format=FORMATS[x.ndim]).movedim(1, -1).flatten(1, -2)


def like_a_map(x: Tensor) -> Tensor:
    """Room for a map like `x`, channels last."""
    return torch.empty_like(x, memory_format=FORMATS[x.ndim])


def pooled_space(x: Tensor, top: bool) -> tuple[Tensor, ...]:
    """Mean, and maximum if it is wanted, of each channel of (B, P, C): (B, C) each. In fp32."""
    sums, tops = go.parts_of(x), go.parts_of(x) if top else x.new_empty(0, dtype=torch.float32)
    go.by_part(go.pool_space, x, x, sums, tops, TOP=top)
    return (sums.sum(1) / x.shape[1], *([tops.amax(1)] if top else []))


def cbam_forward(x: Tensor, shortcut: Tensor | None, relu: bool, p: cbam.Parameters) -> tuple[Tensor, ...]:
    """What `zoo::cbam` returns, with shortcut and ReLU in the last pass."""
    images, _, *size = x.shape
    maps = flat(x)
    pooled = torch.stack(pooled_space(maps, True))
    logits_c, hidden = excite(pooled, p.w1, p.b1, p.w2, p.b2)
    gate_c = logits_c.sigmoid_().mul_(p.scale)
    planes = go.room_for(maps, 2, images, *size)
    go.by_place(go.pool_channels, maps, maps, gate_c, planes[0], planes[1])
    normed = logits = torch.convolution(planes.transpose(0, 1), p.kernel, None, *unit_stride(p.kernel))
    mean, invstd, new_mean, new_var = (logits.new_empty(0) for _ in range(4))
    if p.weight is not None:
        new_mean, new_var = (kept.clone() for kept in (p.running_mean, p.running_var) if kept is not None)
        norm = (p.weight, p.bias, new_mean, new_var, cbam._batch_decides(p, logits.numel()), p.momentum, p.eps)
        normed, mean, invstd = aten.native_batch_norm(logits, *norm)
    gate_s = torch.sigmoid(normed).mul_(p.scale).contiguous()
    y = like_a_map(x)
    more = maps if shortcut is None else flat(shortcut)
    options = {"SPATIAL": True, "SHORTCUT": shortcut is not None, "RELU": relu}
    go.by_block(go.weigh, maps, maps, more, gate_c, gate_s, flat(y), **options)
    return y, *cbam.Saved(pooled, hidden, gate_c, planes, logits, gate_s, mean, invstd), new_mean, new_var


def cbam_backward(
    dy: Tensor, y: Tensor, relu: bool, x: Tensor, p: cbam.Parameters, saved: cbam.Saved
) -> tuple[Tensor, ...]:
    """The gradients through the ReLU, of `x`, the two layers (4), the convolution and its batch norm (2)."""
    maps, slopes = flat(x), flat(dy)
    top_c, top_s = saved.pooled[1].contiguous(), saved.planes[1].contiguous()
    d_gate_s, ties_s = torch.empty_like(saved.gate_s), torch.empty_like(saved.gate_s)
    d_shortcut = like_a_map(x) if relu else dy
    kept = flat(d_shortcut)
    found = (kept, d_gate_s, ties_s)
    go.by_place(go.gradient_of_gate_s, maps, slopes, flat(y), maps, saved.gate_c, top_s, *found, RELU=relu)
    slope_s = d_gate_s * slope_of_sigmoid(saved.gate_s, p.scale)
    d_weight = d_bias = slope_s.new_empty(0)
    if p.weight is not None:
        norm = (p.running_mean, p.running_var, saved.mean, saved.invstd, cbam._batch_decides(p, slope_s.numel()), p.eps)
        wanted = [True, True, True]
        slope_s, d_weight, d_bias = aten.native_batch_norm_backward(slope_s, saved.logits, p.weight, *norm, wanted)
    planes = saved.planes.transpose(0, 1)
    d_planes, d_kernel, _ = aten.convolution_backward(
        slope_s, planes, p.kernel, None, *unit_stride(p.kernel), [True, True, False]
    )
    each_s = (d_planes[:, 0] / x.shape[1]).contiguous()
    share_s = (d_planes[:, 1] / ties_s[:, 0]).contiguous()
    of_places = (saved.gate_s, top_s, each_s, share_s)

    parts, ties = go.parts_of(maps), go.parts_of(maps)
    go.by_part(go.gradient_of_gate_c, maps, kept, maps, saved.gate_c, *of_places, top_c, parts, ties)
    slope_c = parts.sum(1) * slope_of_sigmoid(saved.gate_c, p.scale)
    d_pooled, *d_layers = excite_backward(slope_c, saved.pooled, saved.hidden, p.w1, p.w2)
    each_c, share_c = (d_pooled[0] / maps.shape[1]).contiguous(), (d_pooled[1] / ties.sum(1)).contiguous()
    dx = like_a_map(x)
    of_channels = (top_c, each_c, share_c)
    go.by_block(go.gradient_of_x, maps, kept, maps, saved.gate_c, *of_places, *of_channels, flat(dx))
    return d_shortcut, dx, *d_layers, d_kernel, d_weight, d_bias


def se_forward(x: Tensor, shortcut: Tensor | None, relu: bool, p: se.Parameters) -> tuple[Tensor, ...]:
    """What `zoo::se` returns, with shortcut and ReLU in the last pass."""
    maps = flat(x)
    mean = pooled_space(maps, False)[0][None]
    logits, hidden = excite(mean, p.w1, p.b1, p.w2, p.b2)
    gate, y = logits.sigmoid_().mul_(p.scale), like_a_map(x)
    more = maps if shortcut is None else flat(shortcut)
    options = {"SPATIAL": False, "SHORTCUT": shortcut is not None, "RELU": relu}
    go.by_block(go.weigh, maps, maps, more, gate, gate, flat(y), **options)
    return y, mean, hidden, gate


def se_backward(
    dy: Tensor, y: Tensor, relu: bool, x: Tensor, p: se.Parameters, mean: Tensor, hidden: Tensor, gate: Tensor
) -> tuple[Tensor, ...]:
    """The gradients through the ReLU, of `x` and of the two layers."""
    maps, parts = flat(x), go.parts_of(flat(x))
    d_shortcut = like_a_map(x) if relu else dy
    kept = flat(d_shortcut)
    go.by_part(go.gradient_of_channels, maps, flat(dy), flat(y), maps, kept, parts, RELU=relu)
    slope = parts.sum(1) * slope_of_sigmoid(gate, p.scale)
    d_mean, *d_layers = excite_backward(slope, mean, hidden, p.w1, p.w2)
    dx, each = like_a_map(x), (d_mean[0] / maps.shape[1]).contiguous()
    go.by_block(go.weigh_and_add, maps, kept, gate, each, flat(dx))
    return d_shortcut, dx, *d_layers


def amplify_forward(
    x: Tensor, shortcut: Tensor | None, relu: bool, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool
) -> Tensor:
    """What `zoo::amplify` returns, with shortcut and ReLU in the same pass."""
    maps, y = flat(x), like_a_map(x)
    more = maps if shortcut is None else flat(shortcut)
    options = {"amplitude": amplitude, "span": _span(neutral), "SHORTCUT": shortcut is not None, "RELU": relu}
    go.by_block(go.amplify, maps, maps, more, channel.contiguous(), spatial.contiguous(), flat(y), **options)
    return y


def amplify_backward(
    dy: Tensor, y: Tensor, relu: bool, x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool
) -> tuple[Tensor, ...]:
    """The gradients through the ReLU, of the map and of both logits."""
    maps, dx = flat(x), like_a_map(x)
    d_shortcut = like_a_map(x) if relu else dy
    blocks = -(-maps.shape[1] // go.PLACES)
    parts, d_spatial = go.room_for(maps, len(x), blocks, x.shape[1]), torch.empty_like(spatial.contiguous())
    small = (channel.contiguous(), spatial.contiguous(), flat(d_shortcut), flat(dx), parts, d_spatial)
    options = {"amplitude": amplitude, "span": _span(neutral), "RELU": relu}
    go.by_place(go.gradients_of_amplify, maps, flat(dy), flat(y), maps, *small, **options)
    return d_shortcut, dx, parts.sum(1).view(channel.shape), d_spatial


def _span(neutral: bool) -> float:
    """Twice the sigmoid less 1 has a span of 2."""
    return 2.0 if neutral else 1.0
