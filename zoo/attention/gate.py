"""What every single gate shares: squeeze, excite in full precision, sigmoid, multiply.

A gate first *squeezes* the map to a small statistic, then *excites* it to logits (the words of Hu et al. 2018, arXiv
1709.01507, sections 3.1 and 3.2). The excitation runs in the parameters' own precision (zoo/attention/precision.py).
"""

from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.contract import Composable, Factory
from zoo.attention.precision import in_full_precision


def zero_(layer: nn.Module) -> None:
    """Set a layer's weight and, where it has one, its bias to zero."""
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


class Gate(Composable):
    """`y = x * sigmoid(excite(squeeze(x)))` for `x` (B, C, H, W); as a part, `excite(squeeze(x))`.

    Where it is neutral the sigmoid is divided by `start`.
    """

    weighs: ClassVar[str]
    """What the gate weighs apart, its name in `gates`: "channel", "spatial" or "joint"."""
    start: ClassVar[float] = 0.5
    """The sigmoid of a gate that was made constant; 1/2 where its logits are 0."""

    def __init__(self, neutral: bool = False, **factory: Unpack[Factory]) -> None:
        super().__init__(neutral, **factory)
        self.scale = 1 / self.start if neutral else 1.0

    @abstractmethod
    def squeeze(self, x: Tensor) -> Tensor:
        """Summarise `x` (B, C, H, W), in the precision of the gate's parameters."""

    @abstractmethod
    def excite(self, squeezed: Tensor) -> Tensor:
        """Turn the summary into logits that broadcast against (B, C, H, W)."""

    def logits(self, x: Tensor) -> Tensor:
        """The gate of `x` before its sigmoid, at least in the precision of the gate's parameters."""
        squeezed = self.squeeze(x)
        if torch.jit.is_scripting():
            return self.excite(squeezed)
        else:
            return in_full_precision(self.excite, squeezed)

    def weights(self, logits: Tensor, x: Tensor) -> Tensor:
        """What multiplies `x`, from the gate's logits: taken in their precision, in the dtype of `x`."""
        return self.opened(logits).type_as(x)

    def opened(self, logits: Tensor) -> Tensor:
        """What multiplies a map, in the precision of the logits."""
        weights = ops.sigmoid(logits)
        if self.scale != 1:
            weights = weights * self.scale
        return weights

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {self.weighs: self.weights(self.logits(x), x)}

    def forward(self, x: Tensor) -> Tensor:
        return self.step_by_step(x)

    def step_by_step(self, x: Tensor) -> Tensor:
        """`forward` in eager PyTorch."""
        logits = self.logits(x)
        if self.part:
            return logits
        return ops.weigh(x, self.opened(logits))
