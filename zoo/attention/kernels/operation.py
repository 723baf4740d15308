"""What every operation has around it: autocast is kept out, seconds of compiling are told, its way is chosen."""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from zoo.attention.kernels.compiled import stopwatch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
logger = logging.getLogger("zoo.attention.kernels")


def operation(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, in the precision of its arguments."""

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                result = function(*arguments, **named)
        else:
            result = function(*arguments, **named)
        if stopwatch.count:
            logger.info("compiled %d attention kernels in %.1f s", *stopwatch.take())
        return result

    return call


def registered(
    name: str, forward: Callable[..., Any], setup: Callable[..., None], gradient: Callable[..., Any]
) -> Callable[..., Any]:
    """Register `zoo::NAME` on the CPU with its gradient, and return what runs it on a map and its other arguments.

    In a graph, or on a GPU, that is the operation. Else it is `forward` itself, or an autograd.Function of the three,
    as PyTorch takes 0.1 ms longer to find the way through an operation.
    """
    torch.library.impl(f"zoo::{name}", "cpu", forward)
    torch.library.register_autograd(f"zoo::{name}", gradient, setup_context=setup)
    whole = getattr(torch.ops.zoo, name)

    def record(ctx: Any, *inputs: Any) -> Any:
        output = forward(*inputs)
        setup(ctx, inputs, output)
        return output

    members = {"forward": staticmethod(record), "backward": staticmethod(gradient)}
    recorded: Any = type(f"zoo_{name}", (torch.autograd.Function,), members)

    def go(x: Tensor, *arguments: Any) -> Any:
        if torch.compiler.is_compiling() or not x.is_cpu:
            return whole(x, *arguments)
        return (recorded.apply if torch.is_grad_enabled() else forward)(x, *arguments)

    return go


def registered_backward(name: str, backward: Callable[..., Any]) -> Callable[..., Any]:
    """Register `zoo::NAME_backward` on the CPU, and return what runs it on a map's gradient and its other arguments."""
    torch.library.impl(f"zoo::{name}_backward", "cpu", backward)
    whole = getattr(torch.ops.zoo, f"{name}_backward")

    def go(dy: Tensor, *arguments: Any) -> Any:
        # A compiler, and vmap over gradients, come here with tensors that have no memory.
        plain = type(dy) is Tensor and dy.is_cpu and not torch._C._are_functorch_transforms_active()
        return (backward if plain and not torch.compiler.is_compiling() else whole)(dy, *arguments)

    return go


def gradients(
    dy: Tensor | None,
    inputs: Sequence[Tensor | None],
    eager: Callable[..., Tensor],
    kernel: Callable[[], Sequence[Tensor]],
) -> list[Tensor | None]:
    """The gradient of each of `inputs`: by the kernel, or of the eager form, if a second derivative is wanted."""
    if dy is None:
        return [None] * len(inputs)
    if not torch.is_grad_enabled():
        return [None if x is None else found for x, found in zip(inputs, kernel(), strict=True)]
    # One input may have been computed from another; of aliases of its own each gradient is that of one way alone.
    aliases = [None if x is None else x.view_as(x) for x in inputs]
    wanted = [x for x in aliases if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(eager(*aliases), wanted, dy, create_graph=True))
    return [next(found) if x is not None and x.requires_grad else None for x in aliases]
