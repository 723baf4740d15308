"""A map and two small tensors that gate it, as one operation with its gradient: 2 and 3 readings or writings of it.

    zoo::amplify        x * (1 + amplitude * sigmoid(channel + spatial))    the end of BAM; its branches are PyTorch's
    zoo::weigh_sum      x * (channel + spatial)                             scSE; beside zeros a gate alone, as of ECA
    zoo::weigh_strips   x * rows * columns                                  coordinate attention

A map of their sum or product is never built. The small tensors broadcast to the map: (B, C, 1, 1), (B, 1, H, W),
(B, C, H, 1), (B, C, 1, W).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.attention.kernels.maps import flat, laid_out, over_images
from zoo.attention.kernels.operation import gradients, operation, registered, registered_backward


def gated(name: str, definition: Callable[..., Tensor], numbers: str = "") -> Callable[..., Tensor]:
    """Register `zoo::NAME` and its gradient, and return what runs it: `go(x, a, b, *numbers)`.

    The passes of a layout are its functions NAME and gradients_of_NAME; `numbers` is the schema of what follows the
    tensors.
    """
    schema = f"Tensor x, Tensor a, Tensor b{numbers}"
    torch.library.define(f"zoo::{name}", f"({schema}) -> Tensor")
    torch.library.define(f"zoo::{name}_backward", f"(Tensor dy, {schema}) -> (Tensor, Tensor, Tensor)")

    @operation
    def forward(x: Tensor, a: Tensor, b: Tensor, *numbers: float) -> Tensor:
        passes, x = laid_out(x)
        y = torch.empty_like(x)
        gates = (flat(_as_map(each, x, passes), passes) for each in (a, b))
        over_images(getattr(passes, name), flat(x, passes), *gates, *_in_precision(a, numbers), flat(y, passes))
        return y

    @operation
    def backward(dy: Tensor, x: Tensor, a: Tensor, b: Tensor, *numbers: float) -> tuple[Tensor, ...]:
        passes, x = laid_out(x)
        a, b = (_as_map(each, x, passes) for each in (a, b))
        found = tuple(torch.empty_like(each) for each in (x, a, b))
        read, written = ([flat(each, passes) for each in maps] for maps in ((x, a, b), found))
        slopes = flat(dy.contiguous(memory_format=passes.FORMATS[x.ndim]), passes)
        over_images(getattr(passes, f"gradients_of_{name}"), slopes, *read, *_in_precision(a, numbers), *written)
        return found

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.numbers = inputs[3:]
        ctx.set_materialize_grads(False)

    def gradient(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, numbers = ctx.saved_tensors, ctx.numbers
        found = gradients(
            dy, inputs, lambda *maps: definition(*maps, *numbers), lambda: run_backward(dy, *inputs, *numbers)
        )
        return *found, *[None] * len(numbers)

    def fake_forward(x: Tensor, *others: Any) -> Tensor:
        return torch.empty_like(laid_out(x)[1])

    def fake_backward(dy: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
        passes, x = laid_out(x)
        return torch.empty_like(x), *(torch.empty_like(_as_map(each, x, passes)) for each in others[:2])

    torch.library.register_fake(f"zoo::{name}", fake_forward)
    torch.library.register_fake(f"zoo::{name}_backward", fake_backward)
    run_backward = registered_backward(name, backward)
    return registered(name, forward, setup, gradient)


def _as_map(gate: Tensor, x: Tensor, passes: Any) -> Tensor:
    """The gate as the passes take it, with channels where those of `x` are."""
    return gate.detach().contiguous(memory_format=passes.FORMATS[x.ndim])


def _in_precision(gate: Tensor, numbers: tuple[float, ...]) -> list[Any]:
    """Numbers in the precision of the gate, so that the passes compute in no other."""
    kind = np.float64 if gate.dtype == torch.float64 else np.float32
    return [kind(number) for number in numbers]


def amplified(x: Tensor, channel: Tensor, spatial: Tensor, amplitude: float, neutral: bool) -> Tensor:
    """The definition of `amplify`; logits (B, C, 1, 1) and (B, 1, H, W). Twice the sigmoid less 1 is a tanh."""
    joined = channel + spatial
    gate = torch.tanh(joined * 0.5) if neutral else torch.sigmoid(joined)
    return x * (1 + amplitude * gate).to(x.dtype)


def _weighed_by_the_sum(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    return x * (channel + spatial).to(x.dtype)


def _weighed_by_strips(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x * (rows * columns).to(x.dtype)


OF_AMPLIFY = ", float amplitude, bool neutral"
"""What it takes besides tensors, in the words of a schema."""
amplify = gated("amplify", amplified, OF_AMPLIFY)
weigh_sum = gated("weigh_sum", _weighed_by_the_sum)
weigh_strips = gated("weigh_strips", _weighed_by_strips)
