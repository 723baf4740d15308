"""Gates in fp32 under autocast: a bf16 sigmoid near 1 moves in steps of 2**-8, coarser than most gates differ."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def precision_of(gate: nn.Module, x: Tensor) -> torch.dtype | None:
    """The dtype in which `gate` takes its summaries of `x`: that of its parameters, which autocast leaves alone.

    None, the dtype of `x`, in a symbolic trace, and where no layer has parameters, as after dynamic quantisation.
    """
    if isinstance(x, torch.fx.Proxy):
        return None
    for layer in gate._modules.values():  # a layer's weight is a method once it is quantised, so no name is asked for
        for parameter in () if layer is None else layer._parameters.values():
            if parameter is not None:
                return parameter.dtype
    lowered = not x.is_meta and torch.is_autocast_enabled(x.device.type)
    return torch.promote_types(x.dtype, torch.float32) if lowered else None


def in_full_precision(function: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Call `function(x)` outside of autocast, so that its layers keep the precision of their parameters."""
    # A symbolic trace (torch.fx) has no device to ask, and the meta device has no autocast.
    if isinstance(x, torch.fx.Proxy) or x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return function(x)
    with torch.autocast(x.device.type, enabled=False):
        return function(x)


@torch.fx.wrap
def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in fp32, or in fp64 if it is; a leaf of a symbolic trace, whose tensors have no dtype yet."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
