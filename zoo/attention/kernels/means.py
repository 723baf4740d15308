"""Means of a map as operations: of each channel, and of each row and each column of each channel, in one reading.

The gradient of a mean is the same for all that went into it. PyTorch writes it out as a map before it is added to the
map's other gradient; here it is added as it is, where that is faster. bf16 maps are read as they are, their means are
fp32.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from zoo.attention.kernels.maps import flat, laid_out, numbers, over_images, passes_of
from zoo.attention.kernels.operation import operation, registered

WIDER = {torch.bfloat16: torch.float32}
"""The dtype of the means, where it is not that of the map."""
WIDE = 32
"""To a bf16 map of fewer channels PyTorch adds one number a channel 13 times as slowly as a map."""
torch.library.define("zoo::mean", "(Tensor x) -> Tensor")
torch.library.define("zoo::strip_means", "(Tensor x) -> (Tensor rows, Tensor columns)")


def mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1)."""
    return _mean(x)


def strip_means(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> (B, C, H, 1), the mean of each row, and (B, C, 1, W), that of each column."""
    return _strips(x)


@operation
def mean_forward(x: Tensor) -> Tensor:
    """As `mean`."""
    passes, x = laid_out(x)
    found = _new(x, *x.shape[:2])
    over_images(passes.mean_of_space, flat(x, passes), numbers(found))
    return found.view(*x.shape[:2], *[1] * (x.ndim - 2))


@operation
def strips_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `strip_means`."""
    passes, x = laid_out(x)
    (images, channels, height, width), layout = x.shape, passes.FORMATS[4]
    strips = [_new(x, images, channels, *size, memory_format=layout) for size in ((height, 1), (1, width))]
    over_images(passes.means_of_strips, flat(x, passes), *(flat(each, passes) for each in strips))
    return strips[0], strips[1]


def _new(x: Tensor, *shape: int, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    dtype = WIDER.get(x.dtype, x.dtype)
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=memory_format)


def _setup(ctx: Any, inputs: tuple[Tensor], output: Any) -> None:
    (x,) = inputs
    ctx.shape, ctx.dtype, ctx.layout = x.shape, x.dtype, passes_of(x).FORMATS[x.ndim]
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, *slopes: Tensor | None) -> Tensor | None:
    """That of a mean, or the sum of those of both strips."""
    there = [slope for slope in slopes if slope is not None]
    shares = [slope / (ctx.shape.numel() // slope.numel()) for slope in there]
    if not shares:
        return None
    slope = reduce(torch.add, shares).to(ctx.dtype).expand(ctx.shape)
    narrow = ctx.dtype == torch.bfloat16 and ctx.shape[1] < WIDE
    return slope.contiguous(memory_format=ctx.layout) if narrow else slope


_mean = registered("mean", mean_forward, _setup, _gradient)
_strips = registered("strip_means", strips_forward, _setup, _gradient)


@torch.library.register_fake("zoo::mean")
def _fake_mean(x: Tensor) -> Tensor:
    return _new(x, *x.shape[:2], *[1] * (x.ndim - 2))


@torch.library.register_fake("zoo::strip_means")
def _fake_strips(x: Tensor) -> tuple[Tensor, Tensor]:
    images, channels, height, width = x.shape
    layout = passes_of(x).FORMATS[4]
    rows, columns = ((images, channels, *size) for size in ((height, 1), (1, width)))
    return _new(x, *rows, memory_format=layout), _new(x, *columns, memory_format=layout)
