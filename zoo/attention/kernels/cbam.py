"""CBAM as one operation, `zoo::cbam`, with its gradient, `zoo::cbam_backward`: 4 and 7 readings or writings of the map.

Those of one image follow upon each other while it is in the cache; only a batch norm that goes by the batch parts them,
so where the cache holds an image it is 3 and 5, and without such a norm 2. The gradient goes

    dy -> gate_s -> batch norm -> convolution -> pooled places -> gate_c -> two layers -> pooled channels -> x

so each part of it is known when a pass needs it, and none of the maps between is ever built.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.attention import ops
from zoo.attention.kernels.convolution import convolve, gradient_of_kernel, gradient_of_planes, taps_of, unit_stride
from zoo.attention.kernels.excitation import excite, gradients_of_layers
from zoo.attention.kernels.maps import AS_NUMPY, array, far, flat, laid_out, numbers, over_images
from zoo.attention.kernels.operation import gradients, operation, registered, registered_backward
from zoo.attention.kernels.phases import cbam_forward, cbam_goes_back, slopes_of_gate_s
from zoo.attention.kernels.plane_norm import (
    gradients_of_norm,
    moments,
    moments_of_slopes,
    norm_by_batch,
    norm_by_history,
    slopes_of_logits,
)

NO_NORM = {
    dtype: tuple(np.full(1, number, AS_NUMPY[dtype]) for number in (0, 1, 1, 0))
    for dtype in (torch.float32, torch.float64)
}
"""What changes nothing, as `_norm` has it."""


class Parameters(NamedTuple):
    """Of the two layers, the convolution and its batch norm, if it has one; `scale` multiplies each sigmoid."""

    w1: Tensor
    b1: Tensor | None
    w2: Tensor
    b2: Tensor | None
    kernel: Tensor
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float
    scale: float


class Saved(NamedTuple):
    """What the gradient needs besides."""

    pooled: Tensor
    """Mean and maximum of each channel, (2, B, C)."""
    hidden: Tensor
    """What the first layer made of them, (2, B, C / r)."""
    gate_c: Tensor
    """(B, C)."""
    planes: Tensor
    """Mean and maximum of each place of the map that the first gate left, (2, B, H, W)."""
    logits: Tensor
    """What the convolution made of them, (B, 1, H, W)."""
    gate_s: Tensor
    """(B, 1, H, W)."""
    mean: Tensor
    """What the batch norm took off, (1,); (0,) if those were its running statistics, or there is none."""
    invstd: Tensor
    """By what it multiplied, the same."""


SCHEMA = (
    "Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, Tensor kernel, Tensor? weight, Tensor? bias, "
    "Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps, float scale"
)
torch.library.define("zoo::cbam", f"({SCHEMA}) -> ({', '.join(['Tensor'] * (len(Saved._fields) + 3))})")
torch.library.define(
    "zoo::cbam_backward",
    f"(Tensor dy, {SCHEMA}, {', '.join(f'Tensor {name}' for name in Saved._fields)}) -> ({', '.join(['Tensor'] * 8)})",
)


def eager(x: Tensor, parameters: Parameters) -> Tensor:
    """The definition. It leaves the running statistics alone."""
    p, dtype, space = parameters, parameters.w1.dtype, list(range(2 - x.ndim, 0))
    logits = excite(ops.pool_space(x, space, dtype).flatten(2), p.w1, p.b1, p.w2, p.b2)
    x = x * (torch.sigmoid(logits) * p.scale).to(x.dtype).view(*x.shape[:2], *[1] * len(space))
    logits = torch.convolution(ops.pool_channels(x, dtype), p.kernel, None, *unit_stride(p.kernel))
    if p.weight is not None:
        batch = p.training and logits.numel() > 1
        kept = (None, None) if batch else (p.running_mean, p.running_var)
        logits = torch.batch_norm(logits, p.weight, p.bias, *kept, batch, p.momentum, p.eps, False)
    return x * (torch.sigmoid(logits) * p.scale).to(x.dtype)


def cbam(x: Tensor, p: Parameters) -> Tensor:
    """The map weighed; a batch that the batch norm goes by has a part in its running statistics."""
    plain = x.is_cpu and x.ndim == 4 and not p.training
    if plain and not (torch.compiler.is_compiling() or torch.is_grad_enabled()):
        return weighed(x, p)
    return settle(_run(x, *p), p)


@operation
def weighed(x: Tensor, p: Parameters) -> Tensor:
    """The map alone, of images and outside of training: what `forward` keeps besides takes time on small ones."""
    passes, x = laid_out(x)
    (images, channels, *size), y = x.shape, torch.empty_like(x)
    shapes = (2, images, channels), (2, images, len(p.w1)), (images, channels)
    shapes += (2, images, *size), (images, *size), (images, math.prod(size))
    between = (np.empty(shape, AS_NUMPY[p.w1.dtype]) for shape in shapes)
    known = far(passes), True, True, *_layers(p), _norm(p)
    over_images(cbam_forward, flat(x, passes), *known, *between, flat(y, passes))
    return y


def settle(outputs: tuple[Tensor, ...], p: Parameters) -> Tensor:
    """The map of what an operation returned; the running statistics are updated."""
    y, *saved, new_mean, new_var = outputs
    if p.running_mean is not None and p.running_var is not None and _batch_decides(p, Saved(*saved).logits.numel()):
        with torch.no_grad():
            p.running_mean.copy_(new_mean)
            p.running_var.copy_(new_var)
    return y


@operation
def forward(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The map weighed, what the gradient needs, and the running statistics of the batch norm after this batch."""
    p = Parameters(*arguments)
    passes, x = laid_out(x)
    (images, channels, *size), new = x.shape, p.w1.new_empty
    places = math.prod(size)
    batch = p.weight is not None and _batch_decides(p, images * places)
    pooled, hidden, gate_c = new(2, images, channels), new(2, images, len(p.w1)), new(images, channels)
    planes, logits, gate_s = new(2, images, *size), new(images, 1, *size), new(images, 1, *size)
    mean, invstd, new_mean, new_var = (new(0) for _ in range(4))
    y = torch.empty_like(x)

    layers = _layers(p)
    if p.running_mean is not None and p.running_var is not None:
        new_mean, new_var = p.running_mean.clone(), p.running_var.clone()

    def go(begins: bool, ends: bool) -> None:
        of_channels = (numbers(each) for each in (pooled, hidden, gate_c))
        of_places = numbers(planes), numbers(logits, images, *size), numbers(gate_s, images, places)
        known = far(passes), begins, ends, *layers, _norm(p, mean, invstd)
        over_images(cbam_forward, flat(x, passes), *known, *of_channels, *of_places, flat(y, passes))

    if batch or len(size) == 3:
        go(True, False)
        if len(size) == 3:
            logits = convolve(planes, p.kernel)
        if batch:
            mean, invstd, sums = new(1), new(1), np.empty((images, 2))
            over_images(moments, numbers(logits, images, places), sums)
            statistics = p.running_mean, p.running_var, mean, invstd, new_mean, new_var
            each = (numbers(value) for value in statistics if value is not None)
            norm_by_batch(sums, images * places, p.momentum, p.eps, *each)
        go(False, True)
    else:
        go(True, True)
    return y, *Saved(pooled, hidden, gate_c, planes, logits, gate_s, mean, invstd), new_mean, new_var


def _layers(p: Parameters) -> list[Any]:
    return [*(array(each, p.w1) for each in (p.w1, p.b1, p.w2, p.b2, p.scale)), taps_of(p.kernel)]


def _norm(p: Parameters, mean: Tensor | None = None, invstd: Tensor | None = None) -> tuple[Any, ...]:
    """What the batch norm takes off, by what it multiplies that, twice, and what it adds; a batch's are given."""
    if p.weight is None or p.bias is None:
        return NO_NORM[p.w1.dtype]
    weight, bias = numbers(p.weight), numbers(p.bias)
    if mean is not None and invstd is not None and len(mean):
        return numbers(mean), numbers(invstd), weight, bias
    assert p.running_mean is not None and p.running_var is not None
    by = np.empty_like(weight)
    norm_by_history(numbers(p.running_var), p.eps, by)
    return numbers(p.running_mean), by, weight, bias


@operation
def backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of `x`, the two layers (4), the convolution and its batch norm (2)."""
    p, saved = Parameters(*arguments[:PARAMETERS]), Saved(*arguments[PARAMETERS:])
    passes, x = laid_out(x)
    maps, layout = flat(x, passes), far(passes)
    slopes = flat(dy.contiguous(memory_format=passes.FORMATS[x.ndim]), passes)
    (images, _, *size), places = x.shape, saved.gate_s[0].numel()
    gates = numbers(saved.gate_c), numbers(saved.gate_s, images, places)

    slope_s, scale = torch.empty_like(saved.gate_s), array(p.scale, p.w1)
    ties_s = np.empty_like(gates[1])
    found = numbers(slope_s, images, places), ties_s
    over_images(slopes_of_gate_s, maps, layout, slopes, *gates, numbers(saved.planes), scale, *found)
    d_weight = d_bias = slope_s.new_empty(0)
    if p.weight is not None:
        d_weight, d_bias = _norm_goes_back(p, saved, found[0], numbers(saved.logits, images, places))

    taps = taps_of(p.kernel)
    d_planes = gradient_of_planes(slope_s, saved.planes, p.kernel)  # of volumes; of images it is to be filled
    d_kernels = p.kernel.new_empty(len(x), *p.kernel.shape[1:])
    d_gate_c, d_hidden = torch.empty_like(saved.gate_c), torch.empty_like(saved.hidden)
    d_pooled, dx = torch.empty_like(saved.pooled), torch.empty_like(x)
    over_images(
        cbam_goes_back, maps, layout, slopes, array(p.w1, p.w1), array(p.w2, p.w1), scale, taps,
        numbers(saved.pooled), numbers(saved.hidden), gates[0], numbers(saved.planes), gates[1],
        numbers(slope_s, images, *size), ties_s, numbers(d_planes), numbers(d_kernels),
        numbers(d_gate_c), numbers(d_hidden), numbers(d_pooled), flat(dx, passes),
    )  # fmt: skip
    d_kernel = gradient_of_kernel(d_kernels, slope_s, saved.planes, p.kernel)
    return dx, *gradients_of_layers(d_gate_c, d_hidden, saved.pooled, saved.hidden), d_kernel, d_weight, d_bias


def _norm_goes_back(p: Parameters, saved: Saved, slopes: Any, logits: Any) -> tuple[Tensor, Tensor]:
    """The gradients of the batch norm's weight and bias; the slopes become those of the logits."""
    mean, invstd, weight, _ = _norm(p, saved.mean, saved.invstd)
    d_weight, d_bias, sums = p.w1.new_empty(1), p.w1.new_empty(1), np.empty((len(slopes), 2))
    found = numbers(d_bias), numbers(d_weight)
    over_images(moments_of_slopes, slopes, logits, mean, invstd, sums)
    gradients_of_norm(sums, *found)
    count = slopes.size if _batch_decides(p, slopes.size) else 0
    over_images(slopes_of_logits, slopes, logits, mean, invstd, weight, *found, count)
    return d_weight, d_bias


def _batch_decides(p: Parameters, places: int) -> bool:
    """Whether the batch norm goes by the batch; one value has no variance (zoo/attention/norms.py)."""
    return p.training and places > 1


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *arguments = inputs
    p = Parameters(*arguments)
    ctx.settings = p[TENSORS:]
    saved = Saved(*output[1 : 1 + len(Saved._fields)])
    if _batch_decides(p, saved.logits.numel()):  # the running statistics have no part in it, and will change
        p = p._replace(running_mean=None, running_var=None)
    ctx.save_for_backward(x, *p[:TENSORS], *saved)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, dy: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    x, *tensors = ctx.saved_tensors
    p, saved = Parameters(*tensors[:TENSORS], *ctx.settings), tensors[TENSORS:]
    inputs, settings = (x, *tensors[:LEARNT]), (None,) * (len(p) - LEARNT)

    def definition(x: Tensor, *learnt: Any) -> Tensor:
        return eager(x, Parameters(*learnt, *p[LEARNT:]))

    return *gradients(dy, inputs, definition, lambda: _run_backward(dy, x, *p, *saved)), *settings


def _fake_forward(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    p, (images, channels, *size) = Parameters(*arguments), x.shape
    new, norm = p.w1.new_empty, int(p.weight is not None)
    batch = int(norm and p.training and images * math.prod(size) > 1)
    pooled, hidden = new(2, images, channels), new(2, images, len(p.w1))
    saved = pooled, hidden, new(images, channels), new(2, images, *size)
    places = [new(images, 1, *size) for _ in range(2)]
    return torch.empty_like(laid_out(x)[1]), *saved, *places, new(batch), new(batch), new(norm), new(norm)


def _fake_backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    p = Parameters(*arguments[:PARAMETERS])
    norm = [p.w1.new_empty(int(p.weight is not None)) for _ in range(2)]
    biases = p.w1.new_empty(len(p.w1)), p.w1.new_empty(len(p.w2))
    layers = torch.empty_like(p.w1), biases[0], torch.empty_like(p.w2), biases[1]
    return torch.empty_like(laid_out(x)[1]), *layers, p.kernel.new_empty(p.kernel.shape), *norm


PARAMETERS, TENSORS = len(Parameters._fields), Parameters._fields.index("training")
LEARNT = Parameters._fields.index("running_mean")
_run, _run_backward = registered("cbam", forward, _setup, _gradient), registered_backward("cbam", backward)
torch.library.register_fake("zoo::cbam", _fake_forward)
torch.library.register_fake("zoo::cbam_backward", _fake_backward)
