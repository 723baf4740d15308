"""What every attention module promises, so that other rooms can use any of them alike.

Where a docstring says (B, C, H, W), a module that was built with `dims=3` takes volumes (B, C, D, H, W),
and one that was built with `dims=1` sequences (B, C, L).
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.attention.precision import precision_of


class Factory(TypedDict, total=False):
    """Where a module makes its parameters, and in which precision: handed on to torch's layers as it is."""

    device: torch.device | str | None
    dtype: torch.dtype | None


class Attention(nn.Module, ABC):
    """Takes a feature map (B, C, H, W) and returns it weighed.

    The first argument of every constructor is the number of channels, the last two are `device` and `dtype`. `forward`
    equals `x` times the product of `gates(x)`, to rounding. HardAttention alone crops instead, and HarmoniousAttention
    returns the centres of its regions beside the weighed map.

    The published form starts near one half a sigmoid: SE weakens what it weighs to 1/2, CBAM to 1/4. With
    `neutral=True` the gates are divided by the constant that `make_constant` reaches, so they start near one and a gate
    that has learnt nothing changes nothing (zoo/attention/README.md#two-forms).
    """

    paper: ClassVar[str] = ""
    """Name of the system, authors, year and arXiv number."""

    def __init__(self, neutral: bool = False, **factory: Unpack[Factory]) -> None:
        """Raises TypeError for any other keyword, which a module without layers would otherwise swallow."""
        for name in factory.keys() - Factory.__annotations__.keys():
            own = [p.name for p in inspect.signature(type(self)).parameters.values() if p.kind is not p.VAR_KEYWORD]
            takes = ", ".join([*own, *Factory.__annotations__])
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}; it takes {takes}")
        super().__init__()
        self.neutral = neutral

    def precision(self, x: Tensor) -> torch.dtype | None:
        """The dtype in which to summarise `x` (zoo/attention/precision.py); None is that of `x`."""
        if torch.jit.is_scripting():
            return None
        else:
            return precision_of(self, x)

    @abstractmethod
    def forward(self, x: Tensor) -> Any:
        """(B, C, H, W) -> the same shape."""

    @abstractmethod
    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """The values that multiply `x` (B, C, H, W), by name, each in the dtype of `x` and broadcastable to it.

        `channel` is (B, C, 1, 1), `spatial` (B, 1, H, W), `height` (B, C, H, 1), `width` (B, C, 1, W) and `joint`
        whatever remains when several are no longer apart. Reading them fires no hooks of the parts; in train mode
        batch norms take their statistics from `x`, as in `forward`.
        """

    @abstractmethod
    def make_constant(self) -> float:
        """Set the last layers so that the module multiplies by one constant for every input; return that constant.

        It is 1 where the module is neutral, HA's to rounding. The last layers have a gradient for any input, and one
        step later so have the layers before them, so the module learns from there (zoo/models/README.md). Raises
        ValueError where no parameters can do it.
        """


class Composable(Attention):
    """An attention that stands alone or is a part of another one.

    Alone it applies what it finds to `x`. A part returns what it found instead, before it is applied: a gate its
    logits, hard attention its centres. The composite calls its parts, so that forward hooks on them fire once a
    forward, joins their results, and goes over the map once.
    """

    def __init__(self, neutral: bool = False, **factory: Unpack[Factory]) -> None:
        super().__init__(neutral, **factory)
        self.part = False

    def as_part(self) -> Self:
        """Make this module a part, for good, and return it."""
        self.part = True
        return self
