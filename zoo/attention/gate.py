"""What every gate shares: squeeze, excite in full precision, sigmoid, multiply.

A gate weighs a feature map `x` (B, C, H, W), or a volume (B, C, D, H, W) if it was built with `dims=3`, with values
in (0, 1). Where a docstring says (H, W), a volume has (D, H, W). It first *squeezes* the map to a small
statistic, then *excites* it to logits (the words of Hu et al. 2018, arXiv 1709.01507, sections 3.1 and 3.2).
The excitation runs in the parameters' own precision, so under bf16 or fp16 autocast the gate is still computed
in fp32: a bf16 sigmoid near 1 moves in steps of 2**-8, coarser than most gates differ.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def require_positive(name: str, value: int) -> int:
    """Return `value` if it is an integer above 0, else raise a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}; the papers use 16")
    return value


def require_odd(name: str, value: int) -> int:
    """Return `value` if it is an odd integer above 0 (so that padding keeps the map's size), else raise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise ValueError(f"{name} must be an odd whole number such as 3, 5 or 7, not {value!r}")
    return value


def require_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`, else raise a ValueError that lists them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def pooled_axes(dims: int, keep_depth: bool) -> tuple[int, ...]:
    """The axes, counted from the last, that a channel gate pools over: all of space, or each slice of a volume apart.

    Raises ValueError for `dims` other than 2 (maps) and 3 (volumes), and for `keep_depth` without a depth.
    """
    if dims not in CONVS:
        raise ValueError(f"dims must be 2 for maps (B, C, H, W) or 3 for volumes (B, C, D, H, W), not {dims!r}")
    if keep_depth and dims != 3:
        raise ValueError("keep_depth=True gates each slice of a volume (B, C, D, H, W) apart, so it needs dims=3")
    return tuple(range(-2 if keep_depth else -dims, 0))


def zero_(layer: nn.Module) -> None:
    """Set a layer's weight and, where it has one, its bias to zero."""
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def autograd_is_off(x: Tensor) -> bool:
    """Whether a map computed from `x` may be overwritten: never in a symbolic trace, which may be trained later."""
    return not (isinstance(x, torch.fx.Proxy) or torch.is_grad_enabled())


def in_full_precision(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
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


@torch.fx.wrap
def _batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    several = x.numel() > x.shape[1]
    return F.batch_norm(x, running_mean, running_var, weight, bias, training and several, momentum, eps)


class _TolerantBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm that takes its running statistics when a channel has one value or none to learn from.

    One value has no variance: PyTorch raises there, which stops the official BAM from training with one image on a
    device. A whole trace sees the choice as one leaf, so torch.fx can follow the module in training mode too.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over all but axis 1."""
        return _batch_norm(
            input,
            self.running_mean,  # pyright: ignore[reportArgumentType]  there, as gates always track statistics
            self.running_var,  # pyright: ignore[reportArgumentType]
            self.weight,
            self.bias,
            self.training,
            self.momentum,  # pyright: ignore[reportArgumentType]
            self.eps,
        )


class GateBatchNorm1d(_TolerantBatchNorm, nn.BatchNorm1d):
    """Batch norm over a summary (B, C, 1, 1)."""


class GateBatchNorm2d(_TolerantBatchNorm, nn.BatchNorm2d):
    """Batch norm over (B, C, H, W)."""


class GateBatchNorm3d(_TolerantBatchNorm, nn.BatchNorm3d):
    """Batch norm over (B, C, D, H, W)."""


CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: GateBatchNorm2d, 3: GateBatchNorm3d}
"""Convolution and batch norm by the number of a map's spatial axes."""


class Gate(nn.Module, ABC):
    """A sigmoid gate: `y = x * sigmoid(excite(squeeze(x)))` for `x` (B, C, H, W)."""

    @abstractmethod
    def squeeze(self, x: Tensor) -> Tensor:
        """Summarise `x` (B, C, H, W), in the precision of the gate's parameters."""

    @abstractmethod
    def excite(self, squeezed: Tensor) -> Tensor:
        """Turn the summary into logits that broadcast against (B, C, H, W)."""

    @abstractmethod
    def make_constant(self) -> float:
        """Zero the last layer, so that the gate is one constant for every input; return that constant.

        The last layer has a gradient for any input, and one step later so have the layers before it, so the gate
        learns from there (README, "Warm start").
        """

    def logits(self, x: Tensor) -> Tensor:
        """The gate of `x` before its sigmoid, at least in the precision of the gate's parameters."""
        squeezed = self.squeeze(x)
        if torch.jit.is_scripting():
            return self.excite(squeezed)
        else:
            return in_full_precision(self.excite, squeezed)

    def gate(self, x: Tensor) -> Tensor:
        """The gate of `x` (B, C, H, W), values in (0, 1), broadcastable to `x`, in the dtype of `x`."""
        return torch.sigmoid(self.logits(x)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, `x * gate(x)`."""
        return x * torch.sigmoid(self.logits(x)).to(x.dtype)  # `gate`, without one more call on the hot path
