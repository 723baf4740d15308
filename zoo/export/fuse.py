"""`zoo.fuse_for_inference`: a network with fewer operations that answers the same."""

import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.data.input_spec import input_spec
from zoo.export.constant_gates import find_constant, fold_constants
from zoo.export.idle_gates import Batches, FuseError, answers, find_idle
from zoo.export.norms import fold_norms
from zoo.export.wiring import Wiring

Network = TypeVar("Network", bound=nn.Module)
TOLERANCE = 0.01


@dataclass(frozen=True)
class Fusion:
    """What `fuse_for_inference` did to a network; the attribute `fusion` of what it returns."""

    norms: tuple[str, ...]
    """Batch norms that are gone."""
    norms_left: tuple[str, ...]
    """Batch norms without a layer in front of them that feeds nothing else."""
    constant: tuple[str, ...]
    """Gates that were constants, such as `layer1.0.se.channel`."""
    idle: tuple[str, ...] = ()
    """Gates that were fixed at their averages, as was asked."""
    changed: int = 0
    """Answers that this changed, of `n`."""
    n: int = 0
    top1: tuple[float, float] = (0.0, 0.0)
    """Percent, before and after the idle gates were fixed."""

    def text(self) -> str:
        """Lines for a person."""
        lines = [f"{len(self.norms)} batch norms folded, {len(self.norms_left)} left"]
        lines.append(f"{len(self.constant)} constant gates folded")
        if self.n:
            lines.append(
                f"{len(self.idle)} idle gates fixed at their averages: {self.changed} of {self.n} answers change, "
                f"top-1 {self.top1[1]:.2f} instead of {self.top1[0]:.2f} %"
            )
        return "\n".join(lines)


def fuse_for_inference(
    model: Network, x: Tensor | None = None, *, idle_gates: Batches | None = None, tolerance: float = TOLERANCE
) -> Network:
    """A copy of `model` for inference alone, in eval mode: the same answers to rounding, in fewer operations.

    Batch norms go into the convolutions and linear layers in front of them, those of gates too, and so do gates that
    are one constant for every input, as those of a warm start are before any training. Which layer feeds which is seen
    in one forward pass, of `x`, or of noise of the size that timm says for the model. The copy has parameters of its
    own, other names in its state dict, and no gradients; `model` stays as it is.

    With `idle_gates`, batches of normalised images and class indices, gates that stay within `tolerance` of their
    averages over these (root mean square, as a share of the mean) are fixed at them. That is not exact: `fusion` of the
    result says what was done, and how many of the answers it changed.

    Raises FuseError.
    """
    if idle_gates is not None and iter(idle_gates) is idle_gates:
        raise FuseError("the batches can be gone over only once; give a list of them, or a loader")
    if not tolerance > 0:
        raise FuseError(f"tolerance must be above 0, not {tolerance}; 0.01 is the default")
    fused: Any = copy.deepcopy(model).eval().requires_grad_(False)
    x = _noise(fused) if x is None else x
    constants = find_constant(fused, x)
    norms, _ = fold_norms(fused, Wiring(fused, x))
    constant = fold_constants(fused, constants, Wiring(fused, x))
    more, left = fold_norms(fused, Wiring(fused, x))  # behind gates that are gone
    fusion = Fusion((*norms, *more), tuple(left), tuple(constant))
    if idle_gates is not None:
        exact = copy.deepcopy(fused)
        idle = fold_constants(fused, find_idle(fused, idle_gates, tolerance), Wiring(fused, x))
        before, after = answers((exact, fused), idle_gates)
        changed = int((after.given != before.given).sum())
        fusion = replace(fusion, idle=tuple(idle), changed=changed, n=len(before.given), top1=(before.top1, after.top1))
    fused.fusion = fusion
    return fused


def _noise(model: nn.Module) -> Tensor:
    """One input of the size that timm says."""
    if not hasattr(model, "pretrained_cfg"):
        raise FuseError(f"{type(model).__name__} does not say what it takes; give an input as the second argument")
    parameter = next(model.parameters())
    return torch.randn(1, *input_spec(model).shape, device=parameter.device, dtype=parameter.dtype)
