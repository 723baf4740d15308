"""The end of BAM as one operation, `zoo::amplify`, with its gradient: 2 and 3 readings or writings of the map.

Its two branches stay PyTorch's: they are convolutions. The map of their sum is never built.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.attention.kernels.maps import flat, laid_out, numbers, over_images
from zoo.attention.kernels.operation import gradients, operation

SCHEMA = "Tensor x, Tensor channel, Tensor spatial, float amplitude, bool neutral"
torch.library.define("zoo::amplify", f"({SCHEMA}) -> Tensor")
torch.library.define("zoo::amplify_backward", f"(Tensor dy, {SCHEMA}) -> (Tensor, Tensor, Tensor)")


def eager(x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> Tensor:
    """The definition; logits (B, C, 1, 1) and (B, 1, H, W)."""
    joined = channel + spatial
    gate = torch.tanh(joined * 0.5) if neutral else torch.sigmoid(joined)
    return x * (1 + amplitude * gate).to(x.dtype)


def amplify(x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> Tensor:
    """`x` times 1 + amplitude * sigmoid(channel + spatial), or, where neutral, twice the sigmoid less 1."""
    go = forward if x.is_cpu and not torch.is_grad_enabled() else torch.ops.zoo.amplify
    return go(x, channel, spatial, amplitude, neutral)


@operation
def forward(x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> Tensor:
    """The map amplified."""
    passes, x = laid_out(x)
    y = torch.empty_like(x)
    over_images(passes.amplify, flat(x, passes), *_small(channel, spatial, amplitude, neutral), flat(y, passes))
    return y


@operation
def backward(
    dy: Tensor, x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the map and of both logits."""
    passes, x = laid_out(x)
    slopes = flat(dy.contiguous(memory_format=passes.FORMATS[x.ndim]), passes)
    dx = torch.empty_like(x)
    d_channel = channel.new_empty(channel.shape[:2])
    d_spatial = spatial.new_empty(spatial.shape)
    small = _small(channel, spatial, amplitude, neutral)
    found = flat(dx, passes), numbers(d_channel), numbers(d_spatial.flatten(1))
    over_images(passes.gradients_of_amplify, slopes, flat(x, passes), *small, *found)
    return dx, d_channel.view(channel.shape), d_spatial


def _small(channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> tuple[Any, ...]:
    """As the passes take them; twice the sigmoid less 1 has a span of 2."""
    logits = (numbers(each.detach().flatten(1).contiguous()) for each in (channel, spatial))
    number = float if channel.dtype == torch.float64 else np.float32
    return *logits, number(amplitude), number(2.0 if neutral else 1.0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.amplitude, ctx.neutral = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, form = ctx.saved_tensors, (ctx.amplitude, ctx.neutral)

    def definition(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        return eager(x, channel, spatial, *form)

    return *gradients(dy, inputs, definition, lambda: torch.ops.zoo.amplify_backward(dy, *inputs, *form)), None, None


torch.library.impl("zoo::amplify", "cpu", forward)
torch.library.impl("zoo::amplify_backward", "cpu", backward)
torch.library.register_autograd("zoo::amplify", _gradient, setup_context=_setup)


@torch.library.register_fake("zoo::amplify")
def _fake_forward(x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> Tensor:
    return torch.empty_like(laid_out(x)[1])


@torch.library.register_fake("zoo::amplify_backward")
def _fake_backward(
    dy: Tensor, x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(laid_out(x)[1]), channel.new_empty(channel.shape), spatial.new_empty(spatial.shape)
