"""The sum of an epoch's losses, and whether training has left the finite numbers."""

import math

import torch
from torch import Tensor

from zoo.processes import World

LOOKS = 50
"""Updates between looks at the loss on an accelerator, where each look waits for it."""


class NotFinite(ArithmeticError):
    """A loss is infinite or undefined."""


class Losses:
    """Losses since the epoch began or was resumed, summed on the device."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.every = 1 if world.device.type == "cpu" and world.size == 1 else LOOKS
        self.sum = torch.zeros((), device=world.device)

    def clear(self) -> None:
        """Begin anew."""
        self.sum.zero_()

    def add(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch, already divided by their number."""
        self.sum += loss.detach()

    def look(self, step: int) -> None:
        """Raise NotFinite before the update `step` makes use of a loss, or soon after where each look has to wait."""
        if step % self.every == 0:
            require_finite(self.sum.item())

    def over_processes(self) -> float:
        """This process's sum, mean over the processes. Raises NotFinite."""
        return require_finite((self.world.sum(self.sum) / self.world.size).item())


def require_finite(value: float) -> float:
    """Return `value`, or raise NotFinite."""
    if not math.isfinite(value):
        raise NotFinite
    return value
