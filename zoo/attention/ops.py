"""The functions over whole maps (B, C, H, W) or volumes (B, C, D, H, W), in eager PyTorch.

All else that a gate does is on small summaries, so a kernel that saves time replaces one of these, or several at once.
They work under TorchScript, torch.fx, torch.export and torch.compile; TorchScript leaves a branch out where its
condition is `is_scripting` alone. Where a gate is in full precision and `x` is not, a kernel multiplies in the former,
the eager form in that of `x`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention.kernels import allowed

FILES = {
    "mean": "means",
    "strip_means": "means",
    "weigh_sum": "gated",
    "weigh_strips": "gated",
    "knows": "plane_convolution",
    "convolve": "plane_convolution",
}
"""Of zoo/attention/kernels, by the function that they hold."""


@cache
def kernel(name: str) -> Callable[..., Any]:
    """A function of FILES. Its file is read when it is first wanted, as numba, which may be missing, takes a second."""
    return getattr(import_module(f"zoo.attention.kernels.{FILES[name]}"), name)


def has_kernel(x: Tensor, precision: torch.dtype, parts: Sequence[nn.Module] = ()) -> bool:
    """Whether a function of FILES runs on `x` and a gate in `precision`: not where a compiler joins such steps."""
    return not torch.compiler.is_compiling() and allowed(x, parts, precision) and x.is_cpu


def cast(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`x` in `dtype`; as it is with None."""
    return x if dtype is None else x.to(dtype)


def mean_over_space(x: Tensor, axes: list[int], dtype: torch.dtype | None) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1): the mean over `axes` of space, taken and returned in `dtype`."""
    if not torch.jit.is_scripting():
        if has_kernel(x, dtype or x.dtype) and len(axes) == x.ndim - 2:
            return kernel("mean")(x)
    return x.mean(axes, keepdim=True, dtype=dtype)


def means_of_strips(x: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> (B, C, H, 1), the mean of each row, and (B, C, 1, W), that of each column, in `dtype`."""
    if not torch.jit.is_scripting():
        if has_kernel(x, dtype or x.dtype):
            return kernel("strip_means")(x)
    return x.mean([3], keepdim=True, dtype=dtype), x.mean([2], keepdim=True, dtype=dtype)


def pool_space(
    x: Tensor, axes: list[int], dtype: torch.dtype | None, mean: bool = True, maximum: bool = True
) -> Tensor:
    """(B, C, H, W) -> (K, B, C, 1, 1): the mean, the maximum or both (in this order, K = 2) over `axes` of space."""
    summaries = []
    if mean:
        summaries.append(mean_over_space(x, axes, dtype))
    if maximum:
        summaries.append(cast(x.amax(axes, keepdim=True), dtype))
    return torch.stack(summaries)


def pool_channels(x: Tensor, dtype: torch.dtype | None, mean: bool = True, maximum: bool = True) -> Tensor:
    """(B, C, H, W) -> (B, K, H, W): the mean, the maximum or both (in this order, K = 2) of the channels."""
    summaries = []
    if mean:
        summaries.append(x.mean(1, keepdim=True, dtype=dtype))
    if maximum:
        summaries.append(cast(x.amax(1, keepdim=True), dtype))
    return torch.cat(summaries, 1)


def multiply(x: Tensor, gate: Tensor, scale: float = 1.0) -> Tensor:
    """`x * gate * scale`, without a map of `gate * scale`."""
    if scale == 1:
        return x * gate
    return torch.addcmul(x.new_zeros(()), x, gate, value=scale)


def weigh(x: Tensor, gate: Tensor) -> Tensor:
    """`x * gate`, a gate of its channels (B, C, 1, 1), of its places (B, 1, H, W), or of some of both."""
    if not torch.jit.is_scripting():
        # Without a gradient and in one precision, PyTorch's product is one pass, too.
        if has_kernel(x, gate.dtype) and (torch.is_grad_enabled() or x.dtype != gate.dtype):
            if gate.shape[:2] == x.shape[:2] and gate.shape[2:].numel() == 1:
                return weigh_by_sum(x, gate, gate.new_zeros(len(x), 1, *x.shape[2:]))
            if gate.shape[1] == 1 and gate.shape[2:] == x.shape[2:]:
                return weigh_by_sum(x, gate.new_zeros(*x.shape[:2], *[1] * (x.ndim - 2)), gate)
    return x * gate.type_as(x)


def weigh_by_sum(x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """`x * (channel + spatial)`, gates (B, C, 1, 1) and (B, 1, H, W); a kernel builds no map of their sum."""
    if not torch.jit.is_scripting():
        if has_kernel(x, channel.dtype):
            return kernel("weigh_sum")(x, channel, spatial)
    return x * (channel + spatial).type_as(x)


def weigh_by_strips(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`x * rows * columns`, gates (B, C, H, 1) and (B, C, 1, W); a kernel builds no map of their product."""
    if not torch.jit.is_scripting():
        if has_kernel(x, rows.dtype):
            return kernel("weigh_strips")(x, rows, columns)
    return x * (rows * columns).type_as(x)


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`; a convolution of one channel to one by its kernel."""
    if isinstance(layer, nn.Conv2d) and has_kernel(x, layer.weight.dtype, (layer,)) and kernel("knows")(layer):
        return kernel("convolve")(layer, x)
    return layer(x)


def multiply_(x: Tensor, gate: Tensor) -> Tensor:
    """`x * gate` in place of `x`."""
    return x.mul_(gate)


def sigmoid(x: Tensor) -> Tensor:
    """The sigmoid, by a name that quantisation through torch.fx does not know: it would cut logits to its range."""
    if torch.jit.is_scripting():
        return torch.sigmoid(x)
    else:
        return torch.special.expit(x) if isinstance(x, torch.fx.Proxy) else torch.sigmoid(x)


def sigmoid_(x: Tensor) -> Tensor:
    """The sigmoid in place of `x`; not in a symbolic trace, since quantised tensors have no such function."""
    if torch.jit.is_scripting():
        return x.sigmoid_()
    else:
        return sigmoid(x) if isinstance(x, torch.fx.Proxy) else x.sigmoid_()


def tanh_(x: Tensor) -> Tensor:
    """As `sigmoid_`."""
    if torch.jit.is_scripting():
        return x.tanh_()
    else:
        return torch.tanh(x) if isinstance(x, torch.fx.Proxy) else x.tanh_()


def amplify(x: Tensor, gate: Tensor, scale: float = 1.0) -> Tensor:
    """`x * (1 + scale * gate)`, without a map of `1 + scale * gate`."""
    return torch.addcmul(x, x, gate, value=scale)


def laid_out_as(y: Tensor, x: Tensor) -> Tensor:
    """`y` (B, C, H, W) with its channels last in memory if those of `x` are: sampling and reshaping put them first.

    A symbolic trace, which knows no layout, leaves `y` as it is.
    """
    if torch.jit.is_scripting():
        return y
    else:
        if isinstance(x, torch.fx.Proxy) or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return y
        return y.contiguous(memory_format=torch.channels_last)


def may_overwrite(x: Tensor) -> bool:
    """Whether a map computed from `x` may be overwritten: not if autograd may want it, now or after a trace."""
    if torch.jit.is_scripting():
        return False
    else:  # TorchScript compiles no branch that it skips, but all that stands behind an `if`
        traced = isinstance(x, torch.fx.Proxy) or torch.jit.is_tracing()
        return not (traced or torch.is_grad_enabled())
