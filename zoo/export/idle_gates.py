"""Gates that hardly move over a data set, each with the constant that it stays near.

Nothing here is exact: a gate that another input would move is fixed, too. So the answers that change are counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.attention import Attention, kernels
from zoo.errors import UserError
from zoo.export.constant_gates import Constant
from zoo.export.wiring import calling

Batches = Iterable[tuple[Tensor, Tensor]]


class FuseError(UserError, ValueError):
    """A network that cannot be fused as asked."""


@dataclass(frozen=True)
class Answers:
    """The most probable classes of a data set, and the true ones."""

    given: Tensor
    labels: Tensor

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * (self.given == self.labels).float().mean().item()


class _Seen:
    """Sums over images and places of one gate."""

    def __init__(self) -> None:
        self.n, self.sums, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, gate: Tensor) -> None:
        values = gate.double().movedim(1, 0).flatten(1)
        self.n += values.shape[1]
        self.sums = self.sums + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    @property
    def average(self) -> Tensor:
        return self.sums / self.n

    @property
    def spread(self) -> float:
        """Root mean square distance of a value from its channel's average, as a share of the mean of these."""
        variance = (self.squares / self.n - self.average.square()).clamp(min=0)
        return (variance.mean().sqrt() / self.average.mean()).item()


def find_idle(model: nn.Module, batches: Batches, tolerance: float) -> dict[str, Constant]:
    """The gates whose values stay within `tolerance` of their averages. Raises FuseError without images."""
    seen: dict[str, dict[str, _Seen]] = {}
    axes: dict[str, int] = {}

    def look(path: str, module: Attention, x: Tensor) -> None:
        axes[path] = x.ndim - 2
        for name, gate in module.gates(x).items():
            seen.setdefault(path, {}).setdefault(name, _Seen()).add(gate)

    with calling(model, look):
        answers([model], batches)
    found = {}
    for path, gates in seen.items():
        idle = {name: gate.average.float() for name, gate in gates.items() if gate.spread <= tolerance}
        if idle:
            found[path] = Constant(idle, len(gates) - len(idle), axes[path])
    return found


def answers(models: Sequence[nn.Module], batches: Batches) -> list[Answers]:
    """What each network answers, all to the same images: a loader may shuffle, and crop at random.

    Raises FuseError without images.
    """
    with torch.no_grad(), kernels("off"):
        seen = [([model(images).argmax(1).cpu() for model in models], labels.cpu()) for images, labels in batches]
    if not seen:
        raise FuseError("there are no images to look at the gates with; give batches of (images, classes)")
    labels = torch.cat([each for _, each in seen])
    return [Answers(torch.cat(given), labels) for given in zip(*(given for given, _ in seen), strict=True)]
