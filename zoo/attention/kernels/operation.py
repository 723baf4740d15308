"""What every operation has around it: autocast is kept out, seconds of compiling are told, derivatives are chosen."""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

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


def runs_at_once(x: Tensor) -> bool:
    """Whether an operation's function may be called as it is: with no gradient to record and no graph to stay in."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


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
