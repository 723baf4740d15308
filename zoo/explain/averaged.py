"""The answer of a network whose gates are fixed: at their averages over some pictures, whatever this one is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention import Attention
from zoo.explain.maps import attention_maps
from zoo.explain.watching import at_rest, attention_modules, watched

Averages = Mapping[str, Mapping[str, Tensor]]
"""By the path of an attention and the name of its gate, each channel and place apart."""


def average_gates(model: nn.Module, pictures: Sequence[Tensor]) -> Averages:
    """Over pictures (1, C, H, W). Raises ExplainError for a network without attention."""
    found = [attention_maps(model, x) for x in pictures]
    return {
        path: {name: torch.stack([maps[path].values[name] for maps in found]).mean(0) for name in first.values}
        for path, first in found[0].items()
        if first.values
    }


def with_fixed_gates(model: nn.Module, x: Tensor, gates: Averages) -> Tensor:
    """The logits for `x` (B, C, H, W) with those gates in place of its own."""
    modules = {path: module for path, module in attention_modules(model).items() if path in gates}

    def weigh(path: str, module: Attention, y: Tensor, output: Any) -> Any:
        for gate in gates[path].values():
            y = y * gate.to(y)
        return (y, *output[1:]) if isinstance(output, tuple) else y  # harmonious attention has regions

    with at_rest(model), watched(modules, weigh):
        return model(x)
