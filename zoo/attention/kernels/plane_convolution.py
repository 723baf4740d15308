"""Convolutions of one channel to one as an operation, `zoo::convolve`: BAM has three in a network of 16 channels.

PyTorch's are made for many channels: with the gradient, a dilated one of 128 images of 32x32 places takes it 4 to 9 ms,
and 2 here; of two channels it is as fast. Frames and taps are those of CBAM's convolution (convolution.py).
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.convolution import (
    STRETCH,
    add_taps,
    frame,
    frame_size,
    goes_back,
    gradient_of_kernel,
    take_off,
    unit_stride,
)
from zoo.attention.kernels.maps import array, numbers, over_images
from zoo.attention.kernels.operation import gradients, operation, registered, registered_backward

torch.library.define("zoo::convolve", "(Tensor x, Tensor w, Tensor? b, int dilation) -> Tensor")
torch.library.define(
    "zoo::convolve_backward", "(Tensor dy, Tensor x, Tensor w, Tensor? b, int dilation) -> (Tensor, Tensor, Tensor)"
)


def knows(layer: nn.Module) -> bool:
    """Whether `layer` is such a convolution, of images, that keeps their size."""
    if type(layer) is not nn.Conv2d or (layer.in_channels, layer.out_channels) != (1, 1):
        return False
    (size, other), step = layer.kernel_size, layer.dilation[0]
    kept = layer.dilation == (step, step) and layer.padding == (step * (size // 2),) * 2 and layer.stride == (1, 1)
    return kept and size == other and size % 2 == 1 and layer.padding_mode == "zeros"


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)`, (B, 1, H, W) -> (B, 1, H, W), in the dtype of `x`."""
    return _run(x, layer.weight, layer.bias, layer.dilation[0])


def eager(x: Tensor, w: Tensor, b: Tensor | None, dilation: int) -> Tensor:
    """The definition."""
    return torch.convolution(x, w.to(x.dtype), None if b is None else b.to(x.dtype), *unit_stride(w, dilation))


@operation
def forward(x: Tensor, w: Tensor, b: Tensor | None, dilation: int) -> Tensor:
    """As `convolve`."""
    y = _new(x)
    over_images(_convolve, _planes(x), array(w, w)[0, 0], array(b, w), dilation, _planes(y))
    return y


@operation
def backward(dy: Tensor, x: Tensor, w: Tensor, b: Tensor | None, dilation: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `x`, `w` and `b`."""
    dx, dw, db = _new(x), w.new_empty(len(x), *w.shape[1:]), w.new_empty(len(x), 1)
    found = _planes(dx), numbers(dw)[:, 0], numbers(db)[:, 0]
    over_images(_convolve_back, _planes(x), _planes(dy), array(w, w)[0, 0], dilation, *found)
    return dx, gradient_of_kernel(dw, dy, x.transpose(0, 1), w, dilation), db.sum(0)


@compiled
def _convolve(start, stop, x, taps, bias, step, y):
    """`y` (images, H, W) from `x` and `taps` (k, k), `step` places apart; an empty bias is none."""
    _, height, rows = x.shape
    margin = step * (len(taps) // 2)
    width = rows + 2 * margin
    framed = np.zeros(frame_size(height, width, margin), taps.dtype)
    wide = np.empty(width * height, taps.dtype)
    for n in range(start, stop):
        frame(x[n], margin, framed)
        for first in range(0, len(wide), STRETCH):
            sums = wide[first : first + STRETCH]
            sums[:] = bias[0] if len(bias) else taps.dtype.type(0)
            add_taps(framed, taps, width, step, first, sums)
        take_off(wide, width, y[n])


@compiled
def _convolve_back(start, stop, x, slopes, taps, step, dx, d_taps, d_bias):
    """The gradients of `x` and, for each image, of `taps` and of the bias."""
    _, height, rows = x.shape
    margin = step * (len(taps) // 2)
    width = rows + 2 * margin
    framed = np.zeros(frame_size(height, width, margin), taps.dtype)
    seen = np.zeros_like(framed)
    wide = np.empty(width * height, taps.dtype)
    turned = taps[::-1, ::-1].copy()
    for n in range(start, stop):
        frame(slopes[n], margin, framed)
        frame(x[n], margin, seen)
        goes_back(framed, seen, turned, width, step, wide, dx[n], d_taps[n])
        d_bias[n] = framed.sum()


def _planes(x: Tensor) -> Any:
    """NumPy's view of (B, 1, H, W): (images, H, W)."""
    return numbers(x.contiguous())[:, 0]


def _new(x: Tensor) -> Tensor:
    """Like `x`, without gaps."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.dilation = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, dilation = ctx.saved_tensors, ctx.dilation
    definition = partial(eager, dilation=dilation)
    return *gradients(dy, inputs, definition, lambda: _run_backward(dy, *inputs, dilation)), None


_run_backward = registered_backward("convolve", backward)
_run = registered("convolve", forward, _setup, _gradient)


@torch.library.register_fake("zoo::convolve")
def _fake_forward(x: Tensor, w: Tensor, b: Tensor | None, dilation: int) -> Tensor:
    return _new(x)


@torch.library.register_fake("zoo::convolve_backward")
def _fake_backward(dy: Tensor, x: Tensor, w: Tensor, b: Tensor | None, dilation: int) -> tuple[Tensor, ...]:
    return _new(x), w.new_empty(w.shape), w.new_empty(1)
