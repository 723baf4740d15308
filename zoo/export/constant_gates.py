"""Gates that are constants, whatever the input: found, and folded into the layers beside them.

A gate whose last layers are zero, as behind a warm start, multiplies by one number a channel. Which gates those are is
followed through their arithmetic: what a layer of zeros gives does not depend on what it took.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.attention import CBAM, Attention, kernels
from zoo.export.norms import scale_input, scale_output
from zoo.export.wiring import LAYERS, Wiring, calling, tensors_in


@dataclass(frozen=True)
class Constant:
    """What an attention multiplies by, where that is the same for every input."""

    values: dict[str, Tensor]
    """By the name of the gate: (1,), or (C,) for each channel."""
    others: int
    """How many gates it has besides."""
    axes: int
    """Axes of space."""


BY_FIRST = {Tensor.type_as, Tensor.view_as, Tensor.expand_as, Tensor.to}
"""Functions whose values are those of their first argument alone."""


class Scale(nn.Module):
    """Multiplies by one number, or by one for each channel of (B, C, H, W)."""

    factor: Tensor

    def __init__(self, factor: Tensor, axes: int) -> None:
        super().__init__()
        self.register_buffer("factor", factor.detach().clone().view(-1, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.factor


class _Live(TorchFunctionMode):
    """Follows which tensors depend on `x`."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.live, self.kept = {id(x)}, [x]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        weight = args[1] if func in LAYERS else args[3] if func is F.batch_norm and len(args) > 3 else None
        weight = (kwargs or {}).get("weight") if func is F.batch_norm and weight is None else weight
        given = args[:1] if func in BY_FIRST else (*args, *(kwargs or {}).values())
        zero = isinstance(weight, Tensor) and not weight.any()
        if not zero and any(id(tensor) in self.live for tensor in tensors_in(given)):
            for tensor in tensors_in([output]):
                self.live.add(id(tensor))
                self.kept.append(tensor)
        else:
            self.kept += tensors_in([output])
        return output


def find_constant(model: nn.Module, x: Tensor) -> dict[str, Constant]:
    """The attention of a network that multiplies every input by one number a channel, or has a gate that does."""
    found: dict[str, Constant] = {}

    def look(path: str, module: Attention, given: Tensor) -> None:
        with _Live(given) as watch:
            gates = module.gates(given)
        values = {name: by_channel(gate) for name, gate in gates.items() if id(gate) not in watch.live}
        known = {name: value for name, value in values.items() if value is not None}
        found[path] = Constant(known, len(gates) - len(known), given.ndim - 2)

    with torch.no_grad(), kernels("off"), calling(model, look):
        model(x)
    return {path: constant for path, constant in found.items() if constant.values}


def by_channel(gate: Tensor) -> Tensor | None:
    """A gate (1, C, 1, 1) or (1, C, H, W) as (C,), if it is the same everywhere in space, to rounding."""
    values = gate[0].flatten(1)
    first = values[:, :1]
    return first.flatten() if torch.allclose(values, first.expand_as(values), rtol=1e-6, atol=0) else None


def fold_constants(model: nn.Module, constants: dict[str, Constant], wiring: Wiring) -> list[str]:
    """Fold these gates into layers beside them, where there are any; the names of those that are gone."""
    folded = []
    for path, constant in constants.items():
        split = _split(model.get_submodule(path), constant)
        if split is None:
            continue
        before, rest, after = split
        source, target = (wiring.source(path, inside=path), scale_output), (wiring.target(path), scale_input)
        before = _absorb(before, [source], model)
        after = _absorb(after, [target] if rest else [source, target], model)
        left = [part for part in (_scale(before, constant), rest, _scale(after, constant)) if part is not None]
        model.set_submodule(path, nn.Identity() if not left else left[0] if len(left) == 1 else nn.Sequential(*left))
        folded += [f"{path}.{name}" for name in constant.values]
    return folded


def _split(module: nn.Module, constant: Constant) -> tuple[Tensor | None, nn.Module | None, Tensor | None] | None:
    """What multiplies in front of the gates that stay, those, and what multiplies behind; None if they cannot part."""
    if not constant.others:
        return None, None, torch.as_tensor(prod(constant.values.values()))
    if not isinstance(module, CBAM):
        return None
    [(name, value)] = constant.values.items()
    first, _ = (key for key, _ in module.named_children())
    setattr(module, name, None)
    [stays] = module.children()
    if name == first and not module.parallel:
        return value, module, None
    if len(value) == 1:
        stays.scale *= value.item()  # pyright: ignore[reportOperatorIssue, reportAttributeAccessIssue]  a Gate
        return None, module, None
    return None, module, value


def _absorb(factor: Tensor | None, layers: list[tuple[str, Any]], model: nn.Module) -> Tensor | None:
    """Let one of these layers take up the factor; what is left of it."""
    if factor is None or bool((factor == 1).all()):
        return None
    for name, scale in layers:
        if name:
            scale(model.get_submodule(name), factor)
            return None
    return factor


def _scale(factor: Tensor | None, constant: Constant) -> Scale | None:
    return None if factor is None else Scale(factor, constant.axes)
