"""The answer of a network whose gates are fixed: at their averages over some pictures, whatever this one is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.explain.maps import attention_maps
from zoo.explain.watching import Fixed, at_rest, attention_modules, fixing, watched


def average_gates(model: nn.Module, pictures: Sequence[Tensor]) -> Fixed:
    """Over pictures (1, C, H, W), each channel and place apart. Raises ExplainError for a network without attention."""
    found = [attention_maps(model, x) for x in pictures]
    return {
        path: {name: torch.stack([maps[path].values[name] for maps in found]).mean(0) for name in first.values}
        for path, first in found[0].items()
        if first.values
    }


def with_fixed_gates(model: nn.Module, x: Tensor, gates: Fixed) -> Tensor:
    """The logits for `x` (B, C, H, W) with those gates in place of its own."""
    modules = {path: module for path, module in attention_modules(model).items() if path in gates}
    with at_rest(model), watched(modules, fixing(gates, gates)):
        return model(x)
