"""Batch norms folded into the layers in front of them: in eval mode a norm is one factor and one sum a channel."""

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from zoo.attention import SoftAttention
from zoo.attention.norms import GateBatchNorm1d, GateBatchNorm2d, GateBatchNorm3d
from zoo.export.wiring import Wiring

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, GateBatchNorm1d, GateBatchNorm2d, GateBatchNorm3d)
"""Norms that do nothing else."""


def fold_norms(model: nn.Module, wiring: Wiring) -> tuple[list[str], list[str]]:
    """Fold each norm that can be; the names of those, and of the norms that are left."""
    folded, left = [], []
    for name, norm in list(model.named_modules()):
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        owner = name.rpartition(".")[0]
        # Its convolution of an outer product is one of a factor (zoo/attention/harmonious.py), no call that is seen.
        soft = isinstance(model.get_submodule(owner), SoftAttention)
        layer, behind = f"{owner}.conv" if soft else wiring.source(name), _behind(norm)
        if not layer or behind is None:
            left.append(name)
            continue
        factor, shift = factor_and_shift(norm)
        scale_output(model.get_submodule(layer), factor, shift)
        model.set_submodule(name, behind)
        folded.append(name)
    return folded, left


def factor_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """By what a norm multiplies each channel, and what it adds, in double precision."""
    mean, variance = (getattr(norm, name).double() for name in ("running_mean", "running_var"))
    weight, bias = (getattr(norm, name) for name in ("weight", "bias"))
    factor = (variance + norm.eps).rsqrt()  # pyright: ignore[reportOperatorIssue]
    if weight is not None:
        factor = factor * weight.double()
    shift = -mean * factor
    return factor, shift if bias is None else shift + bias.double()


@torch.no_grad()
def scale_output(layer: nn.Module, factor: Tensor, shift: Tensor | float = 0.0) -> None:
    """Let a layer give `factor * y + shift` for each channel of its output `y`."""
    weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
    factor = factor.double().expand(len(weight))
    total = factor * (0.0 if bias is None else bias.double()) + shift
    layer.weight = _like(weight, weight.double() * factor.view(-1, *[1] * (weight.ndim - 1)))
    if bias is not None or bool(total.any()):
        layer.bias = _like(weight, total)


@torch.no_grad()
def scale_input(layer: nn.Module, factor: Tensor) -> None:
    """Let a layer take `x` as if each channel was `factor * x`."""
    weight, groups = layer.get_parameter("weight"), int(getattr(layer, "groups", 1))
    each = factor.double().expand(weight.shape[1] * groups).view(groups, -1)
    each = each.repeat_interleave(len(weight) // groups, 0).view(*weight.shape[:2], *[1] * (weight.ndim - 2))
    layer.weight = _like(weight, weight.double() * each)


def _like(weight: Tensor, values: Tensor) -> nn.Parameter:
    kept = torch.empty_like(weight) if values.shape == weight.shape else weight.new_empty(values.shape)
    return nn.Parameter(kept.copy_(values), requires_grad=False)


def _behind(norm: nn.Module) -> nn.Module | None:
    """What stays where the norm was; None for one that cannot be folded: of another kind, or watched by hooks."""
    if norm._forward_hooks or norm._forward_pre_hooks or norm.training or norm.running_var is None:
        return None
    if type(norm) in PLAIN:
        return nn.Identity()
    if type(norm) is not BatchNormAct2d:
        return None
    drop, act = norm.get_submodule("drop"), norm.get_submodule("act")
    return act if isinstance(drop, nn.Identity) else nn.Sequential(drop, act)
