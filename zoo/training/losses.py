"""The sum of an epoch's losses, and whether training has left the finite numbers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.processes import World

LOOKS = 50
"""Updates between looks at the loss on an accelerator, where each look waits for it."""


class NotFinite(ArithmeticError):
    """A loss, or a weight, is infinite or undefined; the text says which."""


class Diverged(UserError, FloatingPointError):
    """A training that left the finite numbers; the text says how to go on."""


class Losses:
    """Losses since the epoch began or was resumed, summed on the device. `step` updates were made before."""

    def __init__(self, world: World, step: int) -> None:
        self.world = world
        self.every = 1 if world.device.type == "cpu" and world.size == 1 else LOOKS
        self.sum = torch.zeros((), device=world.device)
        self.unseen: list[Tensor] = []
        """The sum after each update since the last look."""
        self.good = step - 1
        """The last update after which the weights are known to have given a finite loss."""

    def clear(self) -> None:
        """Begin anew."""
        self.sum.zero_()

    def add(self, losses: Sequence[Tensor]) -> None:
        """Add those of an update's micro-batches, each already divided by their number."""
        for loss in losses:
            self.sum += loss.detach()
        self.unseen.append(self.sum.clone())

    def look(self, step: int) -> None:
        """Raise NotFinite before the update `step` makes use of a loss, or soon after where each look has to wait."""
        if step % self.every == 0:
            self.over_processes(step)

    def over_processes(self, step: int) -> float:
        """The sum, mean over the processes, which ask for it together. Raises NotFinite.

        `step` is the update that the last loss belongs to.
        """
        sums = (self.world.sum(torch.stack([*self.unseen, self.sum])) / self.world.size).tolist()
        for number, each in enumerate(sums[:-1], step + 1 - len(self.unseen)):
            require_finite(each)
            self.good = number
        self.unseen.clear()
        return require_finite(sums[-1])


def require_finite(value: float) -> float:
    """Return `value`, a loss, or raise NotFinite."""
    if not math.isfinite(value):
        raise NotFinite("the loss")
    return value
