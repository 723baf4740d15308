"""SE as one operation, `zoo::se`, with its gradient, `zoo::se_backward`: 2 and 3 readings or writings of the map.

3 and 4 where one image is larger than the cache.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.attention import ops
from zoo.attention.kernels.excitation import excite, gradients_of_layers
from zoo.attention.kernels.maps import array, far, flat, laid_out, numbers, over_images
from zoo.attention.kernels.operation import gradients, operation, registered, registered_backward
from zoo.attention.kernels.phases import se_at_once, se_goes_back


class Parameters(NamedTuple):
    """Of the two layers; `scale` multiplies the sigmoid."""

    w1: Tensor
    b1: Tensor | None
    w2: Tensor
    b2: Tensor | None
    scale: float


SCHEMA = "Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, float scale"
torch.library.define("zoo::se", f"({SCHEMA}) -> (Tensor y, Tensor mean, Tensor hidden, Tensor gate)")
torch.library.define(
    "zoo::se_backward",
    f"(Tensor dy, {SCHEMA}, Tensor mean, Tensor hidden, Tensor gate) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def eager(x: Tensor, p: Parameters) -> Tensor:
    """The definition."""
    space = list(range(2 - x.ndim, 0))
    logits = excite(ops.mean_over_space(x, space, p.w1.dtype).flatten(1)[None], p.w1, p.b1, p.w2, p.b2)
    return x * (torch.sigmoid(logits) * p.scale).to(x.dtype).view(*x.shape[:2], *[1] * len(space))


def se(x: Tensor, p: Parameters) -> Tensor:
    """The map weighed."""
    return _run(x, *p)[0]


@operation
def forward(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The map weighed, and what the gradient needs: mean (1, B, C), hidden layer (1, B, C / r), gate (B, C)."""
    p = Parameters(*arguments)
    passes, x = laid_out(x)
    new = p.w1.new_empty
    mean, hidden, gate = new(1, *x.shape[:2]), new(1, len(x), len(p.w1)), new(x.shape[:2])
    y = torch.empty_like(x)
    layers = [array(each, p.w1) for each in p]
    found = numbers(mean), numbers(hidden), numbers(gate), flat(y, passes)
    over_images(se_at_once, flat(x, passes), far(passes), *layers, *found)
    return y, mean, hidden, gate


@operation
def backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of `x` and of the two layers."""
    p, (mean, hidden, gate) = Parameters(*arguments[:PARAMETERS]), arguments[PARAMETERS:]
    passes, x = laid_out(x)
    slopes = flat(dy.contiguous(memory_format=passes.FORMATS[x.ndim]), passes)
    layers = [array(each, p.w1) for each in (p.w1, p.w2, p.scale)]
    d_gate, d_hidden, d_mean = torch.empty_like(gate), torch.empty_like(hidden), torch.empty_like(mean)
    dx = torch.empty_like(x)
    known = *layers, numbers(hidden), numbers(gate)
    found = numbers(d_gate), numbers(d_hidden), numbers(d_mean), flat(dx, passes)
    over_images(se_goes_back, flat(x, passes), far(passes), slopes, *known, *found)
    return dx, *gradients_of_layers(d_gate, d_hidden, mean, hidden)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *tensors, ctx.scale = inputs
    ctx.save_for_backward(x, *tensors, *output[1:])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, dy: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w1, b1, w2, b2, *saved = ctx.saved_tensors
    inputs, p = (x, w1, b1, w2, b2), Parameters(w1, b1, w2, b2, ctx.scale)

    def definition(x: Tensor, *layers: Any) -> Tensor:
        return eager(x, Parameters(*layers, scale=ctx.scale))

    return *gradients(dy, inputs, definition, lambda: _run_backward(dy, x, *p, *saved)), None


PARAMETERS = len(Parameters._fields)
_run, _run_backward = registered("se", forward, _setup, _gradient), registered_backward("se", backward)


@torch.library.register_fake("zoo::se")
def _fake_forward(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    p, (images, channels) = Parameters(*arguments), x.shape[:2]
    new = p.w1.new_empty
    return torch.empty_like(laid_out(x)[1]), new(1, images, channels), new(1, images, len(p.w1)), new(images, channels)


@torch.library.register_fake("zoo::se_backward")
def _fake_backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    w1, w2 = arguments[0], arguments[2]
    biases = w1.new_empty(len(w1)), w2.new_empty(len(w2))
    return torch.empty_like(laid_out(x)[1]), torch.empty_like(w1), biases[0], torch.empty_like(w2), biases[1]
