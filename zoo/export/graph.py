"""What is traced: the network as it is, or behind its normalisation, with TensorFlow's padding in one operator.

timm pads `pad_type="same"` by arithmetic on the sides of the map, which torch's tracer carries along as formulas that
grow with each layer: EfficientNet-Lite0 with free height and width takes minutes. ONNX has that padding as an attribute
of its convolution, so there it is one operator.
"""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, conv2d_same
from torch import Tensor, nn

from zoo.inference import Trained

AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}
"""Of space, by their number."""
TRACED = 2
"""Inputs in the batch that is traced: an axis of length 1 would stay 1."""
LEAST = (32, 64, 64)
"""Depth, height and width that are traced, where they are free: below, the last maps may have sides of 1."""


class FromPixels(nn.Module):
    """A network behind its normalisation: takes uint8 (B, H, W, C), or (B, D, H, W, C) of volumes."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.network
        shape = (1, -1, *[1] * trained.spec.kind.axes)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(trained.config[name]).view(shape) * 255, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels.movedim(-1, 1).float() - self.mean) / self.std)


def graph_of(trained: Trained, pixels: bool) -> nn.Module:
    """What is traced, in eval mode; the network itself, or a module that has it inside."""
    return (FromPixels(trained) if pixels else trained.network).eval()


def traced_size(trained: Trained, fixed: bool) -> tuple[int, ...]:
    """The network's own size, doubled where it is free and small."""
    own = trained.spec.size
    return own if fixed else tuple(map(_doubled, own, LEAST[-len(own) :]))


def _doubled(side: int, least: int) -> int:
    while side < least:
        side *= 2
    return side


def example(trained: Trained, pixels: bool, fixed: bool) -> Tensor:
    """The input that is traced."""
    channels, size = trained.spec.channels, traced_size(trained, fixed)
    if pixels:
        return torch.zeros(TRACED, *size, channels, dtype=torch.uint8)
    return torch.zeros(TRACED, channels, *size)


def free_axes(trained: Trained, pixels: bool, fixed: bool) -> dict[int, str]:
    """Axes of the input that may have any length, by their place."""
    if fixed:
        return {0: "batch"}
    first = 1 if pixels else 2
    return {0: "batch", **dict(enumerate(AXES[trained.spec.kind.axes], start=first))}


def has_same_padding(network: nn.Module) -> bool:
    """Whether the network pads by arithmetic on the sides of its maps."""
    return any(isinstance(module, Conv2dSame) for module in network.modules())


@torch.library.custom_op("zoo::conv2d_same", mutates_args=())
def same(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], dilation: list[int], groups: int) -> Tensor:
    """A convolution with TensorFlow's padding: (B, C, H, W) -> (B, C', H / stride, W / stride), rounded up."""
    return conv2d_same(x, weight, bias, (stride[0], stride[1]), (0, 0), (dilation[0], dilation[1]), groups)


@same.register_fake
def _(x: Tensor, weight: Tensor, bias: Any, stride: list[int], dilation: list[int], groups: int) -> Tensor:
    sides = [(side + step - 1) // step for side, step in zip(x.shape[2:], stride, strict=True)]
    return x.new_empty(x.shape[0], weight.shape[0], *sides)


class InOne(nn.Module):
    """A Conv2dSame as one operator of the graph, for ONNX."""

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.weight: Any = conv.weight
        self.bias: Any = conv.bias
        options: Any = conv
        self.stride, self.dilation, self.groups = [*options.stride], [*options.dilation], options.groups
        self.kernel = [*options.kernel_size]

    def forward(self, x: Tensor) -> Tensor:
        return same(x, self.weight, self.bias, self.stride, self.dilation, self.groups)


class ByRemainder(InOne):
    """The same for `.pt2`, which knows no other operators than torch's: the padding by what is left of a side.

    timm's formula rounds up, which torch traces and then cannot write down.
    """

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride, dilation in zip(x.shape[2:], self.kernel, self.stride, self.dilation, strict=True):
            reach = dilation * (kernel - 1) + 1
            left = (-side) % stride if stride > 1 else 0
            total = reach - stride + left if reach >= stride else max(reach - stride + left, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def replaced(network: nn.Module, form: type[InOne]) -> nn.Module:
    """A copy whose convolutions with TensorFlow's padding have another form."""
    copied = deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, Conv2dSame):
            copied.set_submodule(name, form(module))
    return copied
