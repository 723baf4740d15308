"""What every single gate shares: squeeze, excite in full precision, sigmoid, multiply.

A gate first *squeezes* the map to a small statistic, then *excites* it to logits (the words of Hu et al. 2018, arXiv
1709.01507, sections 3.1 and 3.2). The excitation runs in the parameters' own precision (zoo/attention/precision.py).
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.attention import ops
from zoo.attention.contract import Composable
from zoo.attention.precision import in_full_precision


def zero_(layer: nn.Module) -> None:
    """Set a layer's weight and, where it has one, its bias to zero."""
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def sigmoid_like(logits: Tensor, x: Tensor) -> Tensor:
    """The sigmoid of `logits`, taken in their precision, in the dtype of `x`."""
    return torch.sigmoid(logits).to(x.dtype)


class Gate(Composable):
    """`y = x * sigmoid(excite(squeeze(x)))` for `x` (B, C, H, W); as a part, `excite(squeeze(x))`."""

    weighs: ClassVar[str]
    """What the gate weighs apart, its name in `gates`: "channel", "spatial" or "joint"."""

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

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        return {self.weighs: sigmoid_like(self.logits(x), x)}

    def forward(self, x: Tensor) -> Tensor:
        logits = self.logits(x)
        if self.part:
            return logits
        return ops.multiply(x, sigmoid_like(logits, x))
