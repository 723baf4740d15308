"""The tails as operations of `torch.library`: `zoo::cbam_tail`, `zoo::se_tail`, `zoo::amplify_tail`, with gradients.

On a GPU `zoo::cbam`, `zoo::se` and `zoo::amplify` are these without shortcut and ReLU. On a CPU the tails run in
Triton's interpreter (TRITON_INTERPRET=1), for tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.attention.kernels import cbam, gated, se, tails
from zoo.attention.kernels.operation import gradients


@dataclass(frozen=True)
class Kind:
    """What is particular to one attention."""

    name: str
    schema: str
    """Of what it takes besides the map."""
    outputs: int
    """How many tensors its operation returns besides the map."""
    learnt: int
    """How many of its arguments, the first ones, have a gradient."""
    forward: Callable[..., tuple[Tensor, ...]]
    backward: Callable[..., tuple[Tensor, ...]]
    """From the slope, what was returned, whether there is a ReLU, the map, the arguments, the other outputs."""
    eager: Callable[..., Tensor]
    settled: Callable[[list[Any], Sequence[Tensor]], list[Any]] = lambda arguments, outputs: arguments
    """The arguments that the gradient goes by, from those and the outputs."""


def _outside_autocast(x: Tensor, function: Callable[..., Any], *arguments: Any) -> Any:
    with torch.autocast(x.device.type, enabled=False):
        return function(x, *arguments)


def _register(kind: Kind) -> None:
    tail, back = f"zoo::{kind.name}_tail", f"zoo::{kind.name}_tail_backward"
    tensors = ", ".join(["Tensor"] * (1 + kind.outputs))
    torch.library.define(tail, f"(Tensor x, Tensor? shortcut, bool relu, {kind.schema}) -> ({tensors})")
    found = ", ".join(["Tensor"] * (2 + kind.learnt))
    others = "".join(f", Tensor saved{k}" for k in range(kind.outputs))
    taken = f"Tensor dy, Tensor y, bool relu, Tensor x, {kind.schema}{others}"
    torch.library.define(back, f"({taken}) -> ({found})")

    def forward(x: Tensor, *arguments: Any) -> Any:
        return _alone(_outside_autocast(x, kind.forward, *arguments))

    def backward(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        slope, *found = _outside_autocast(dy, kind.backward, *arguments)
        return (slope.clone() if slope is dy else slope), *found  # an operation returns none of its arguments

    for device in ("cpu", "cuda"):
        torch.library.impl(tail, device, forward)
        torch.library.impl(back, device, backward)
    torch.library.impl(f"zoo::{kind.name}", "cuda", lambda x, *arguments: forward(x, None, False, *arguments))

    count = kind.schema.count(",") + 1

    def alone_backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        return _outside_autocast(dy, kind.backward, dy, False, x, *arguments)[1:]

    torch.library.impl(f"zoo::{kind.name}_backward", "cuda", alone_backward)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        output = output if isinstance(output, tuple) else (output,)
        x, shortcut, ctx.relu, *arguments = inputs
        settled = kind.settled(list(arguments), output[1:])
        ctx.settings = [None if isinstance(each, Tensor) else each for each in settled]
        kept = [each if isinstance(each, Tensor) else None for each in settled]
        ctx.save_for_backward(x, shortcut, *kept, *output)
        ctx.set_materialize_grads(False)

    def gradient(ctx: Any, dy: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        x, shortcut, *saved = ctx.saved_tensors
        kept, (y, *outputs) = saved[:count], saved[count:]
        arguments = [each if each is not None else other for each, other in zip(kept, ctx.settings, strict=True)]
        learnt, rest = arguments[: kind.learnt], arguments[kind.learnt :]

        def definition(x: Tensor, shortcut: Tensor | None, *learnt: Any) -> Tensor:
            weighed = kind.eager(x, *learnt, *rest)
            weighed = weighed if shortcut is None else weighed + shortcut
            return torch.relu(weighed) if ctx.relu else weighed

        def kernel() -> list[Tensor]:
            name = f"{kind.name}_tail_backward"
            of_shortcut, of_x, *found = getattr(torch.ops.zoo, name)(dy, y, ctx.relu, x, *arguments, *outputs)
            return [of_x, of_shortcut, *found]

        of_x, of_shortcut, *found = gradients(dy, (x, shortcut, *learnt), definition, kernel)
        return of_x, of_shortcut, None, *found, *[None] * len(rest)

    torch.library.register_autograd(tail, gradient, setup_context=setup)


def _alone(outputs: tuple[Tensor, ...]) -> Any:
    first, *others = outputs
    return outputs if others else first


def _without_statistics(arguments: list[Any], outputs: Sequence[Tensor]) -> list[Any]:
    """Of CBAM: where a batch decides, the running statistics have no part in the gradient, and will change."""
    p = cbam.Parameters(*arguments)
    if cbam._batch_decides(p, cbam.Saved(*outputs[: len(cbam.Saved._fields)]).logits.numel()):
        p = p._replace(running_mean=None, running_var=None)
    return list(p)


def _cbam(x: Tensor, shortcut: Tensor | None, relu: bool, *arguments: Any) -> tuple[Tensor, ...]:
    return tails.cbam_forward(x, shortcut, relu, cbam.Parameters(*arguments))


def _cbam_backward(dy: Tensor, y: Tensor, relu: bool, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    count = len(cbam.Parameters._fields)
    saved = cbam.Saved(*arguments[count : count + len(cbam.Saved._fields)])
    return tails.cbam_backward(dy, y, relu, x, cbam.Parameters(*arguments[:count]), saved)


def _se(x: Tensor, shortcut: Tensor | None, relu: bool, *arguments: Any) -> tuple[Tensor, ...]:
    return tails.se_forward(x, shortcut, relu, se.Parameters(*arguments))


def _se_backward(dy: Tensor, y: Tensor, relu: bool, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    count = len(se.Parameters._fields)
    mean, hidden, gate = arguments[count:]
    return tails.se_backward(dy, y, relu, x, se.Parameters(*arguments[:count]), mean, hidden, gate)


def _amplify(x: Tensor, shortcut: Tensor | None, relu: bool, *arguments: Any) -> tuple[Tensor, ...]:
    return (tails.amplify_forward(x, shortcut, relu, *arguments),)


KINDS = (
    Kind(
        "cbam",
        cbam.SCHEMA.removeprefix("Tensor x, "),
        len(cbam.Saved._fields) + 2,
        7,
        _cbam,
        _cbam_backward,
        lambda x, *arguments: cbam.eager(x, cbam.Parameters(*arguments)),
        _without_statistics,
    ),
    Kind(
        "se",
        se.SCHEMA.removeprefix("Tensor x, "),
        3,
        4,
        _se,
        _se_backward,
        lambda x, *arguments: se.eager(x, se.Parameters(*arguments)),
    ),
    Kind(
        "amplify",
        f"Tensor channel, Tensor spatial{gated.OF_AMPLIFY}",
        0,
        2,
        _amplify,
        tails.amplify_backward,
        gated.amplified,
    ),
)
for kind in KINDS:
    _register(kind)
cbam_tail, se_tail = torch.ops.zoo.cbam_tail, torch.ops.zoo.se_tail
