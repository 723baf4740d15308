"""The operations of the Triton kernels with numbers to run them on, and the same in eager PyTorch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention import CBAM, SqueezeExcite
from zoo.attention.kernels.tail_ops import KINDS, Kind


@dataclass
class Case:
    """One operation on one map."""

    kind: Kind
    x: Tensor
    shortcut: Tensor | None
    arguments: list[Any]
    dy: Tensor

    def leaves(self) -> list[Tensor]:
        """All that a gradient is taken of."""
        given = [self.x, self.shortcut, *self.arguments]
        return [each for each in given if isinstance(each, Tensor) and each.requires_grad]

    def kernel(self) -> Tensor:
        """By the operation."""
        relu = self.shortcut is not None
        found = getattr(torch.ops.zoo, f"{self.kind.name}_tail")(self.x, self.shortcut, relu, *self.arguments)
        return found if isinstance(found, Tensor) else found[0]

    def eager(self) -> Tensor:
        """By the definition."""
        y = self.kind.eager(self.x, *self.arguments)
        return y if self.shortcut is None else torch.relu(y + self.shortcut)

    def outcome(self, way: str) -> list[Tensor]:
        """What is returned, and the gradients of the map, the shortcut and all parameters."""
        y = getattr(self, way)()
        return [y.detach(), *torch.autograd.grad(y, self.leaves(), self.dy)]

    def double(self) -> "Case":
        """The same numbers in fp64."""

        def wide(value: Any) -> Any:
            return value.detach().double().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value

        return Case(self.kind, wide(self.x), wide(self.shortcut), [*map(wide, self.arguments)], self.dy.double())


def make_case(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, residual: bool, ties: bool = False
) -> Case:
    """Random numbers; with `ties` rounded, so that maxima are shared."""
    torch.manual_seed(0)
    [kind] = (each for each in KINDS if each.name == name)
    images, channels, *size = shape

    def a_map() -> Tensor:
        x = torch.randn(shape, device=device)
        x = (x * 2).round() / 2 if ties else x
        return x.to(dtype).contiguous(memory_format=torch.channels_last)

    arguments: list[Any]
    if name == "cbam":
        gate = CBAM(channels, device=device, neutral=True)
        assert gate.spatial is not None and isinstance(gate.spatial.bn, nn.BatchNorm2d)
        nn.init.uniform_(gate.spatial.bn.weight, 0.5, 1.5)
        arguments = list(gate.parts())
    elif name == "se":
        arguments = list(SqueezeExcite(channels, device=device, neutral=True).parts())
    else:
        logits = torch.randn(images, channels, 1, 1, device=device), torch.randn(images, 1, *size, device=device)
        arguments = [*(each.requires_grad_() for each in logits), 1 / 3, True]
    shortcut = a_map().requires_grad_() if residual else None
    return Case(kind, a_map().requires_grad_(), shortcut, arguments, a_map())
