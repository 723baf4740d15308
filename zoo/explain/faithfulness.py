"""Do maps point at what the network uses? One metric for all of them: deletion and insertion.

As in RISE (Petsiuk et al. 2018, arXiv 1806.07421), by torchcam: places are taken out of the picture, those first that a
map has largest, and the probability of the network's answer is watched. A faithful map makes it fall at once, so the
area below the curve is small (deletion), and makes it rise at once when the places come back (insertion, large). A map
of random values is measured beside them: what is no better than that says nothing.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from zoo.explain.cam import INSTALL, grad_cam, has_torchcam
from zoo.explain.maps import attention_maps
from zoo.explain.view import mean_map
from zoo.explain.watching import ExplainError

MakeMap = Callable[[nn.Module, Tensor, list[int]], Tensor]
"""(network, inputs, classes) to maps (B, H, W)."""


def spatial_gates(network: nn.Module, x: Tensor, classes: list[int]) -> Tensor:
    """What the attention does to places: the mean of its maps. Raises ExplainError where it has none."""
    found = mean_map(attention_maps(network, x), tuple(x.shape[2:]))
    if found is None:
        raise ExplainError("its attention has no maps over places, so there is nothing to measure; take CBAM, for one")
    return found


def random_map(network: nn.Module, x: Tensor, classes: list[int]) -> Tensor:
    """Values that know nothing, as coarse as Grad-CAM's; the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(x), *[7] * (x.ndim - 2), generator=generator).to(x.device)


MAPS: dict[str, MakeMap] = {"gates": spatial_gates, "grad_cam": grad_cam, "random": random_map}
"""What is compared."""


class _AsExtractor:
    """Any map, in the form in which torchcam's metrics take their own."""

    def __init__(self, model: nn.Module, make: MakeMap) -> None:
        self.model, self.make = model, make
        self.x = torch.zeros(())

    def __call__(
        self, class_idx: Any = None, scores: Any = None, normalized: bool = True, **others: Any
    ) -> list[Tensor]:
        return [self.make(self.model, self.x, class_idx)]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


@dataclass
class Faithfulness:
    """Deletion and insertion of each map, over pictures that are added one by one or in batches."""

    network: nn.Module
    deletion: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MAPS})
    """Area below the curve, of each picture; small is good."""
    insertion: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MAPS})
    """Likewise; large is good."""

    def __post_init__(self) -> None:
        if not has_torchcam():
            raise ExplainError(f"this takes the package torchcam: {INSTALL}")

    def add(self, x: Tensor) -> None:
        """Measure each of the inputs (B, C, H, W). Raises ExplainError for attention without maps over
        places, and for maps that are not finite."""
        from torchcam.metrics import DeletionInsertionMetric

        for name, make in MAPS.items():
            extract = _AsExtractor(self.network, make)
            for one in x.split(1):
                extract.x = one
                metric = DeletionInsertionMetric(extract, partial(torch.softmax, dim=-1))
                metric.update(one)
                if not metric.total:  # torchcam leaves out what is not finite
                    raise ExplainError(f"the map {name!r} is not finite, so it cannot be measured; see zoo verify")
                found = metric.summary()
                self.deletion[name].append(found["deletion_auc"])
                self.insertion[name].append(found["insertion_auc"])

    def as_json(self) -> dict[str, Any]:
        """Mean and standard deviation over the pictures."""
        curves = {"deletion": self.deletion, "insertion": self.insertion}
        return {name: {curve: _spread(found[name]) for curve, found in curves.items()} for name in MAPS}

    def text(self) -> str:
        """A table."""
        rows = [
            f"{name:9} {' ± '.join(f'{v:.3f}' for v in _spread(self.deletion[name])):>15} "
            f"{' ± '.join(f'{v:.3f}' for v in _spread(self.insertion[name])):>16}"
            for name in MAPS
        ]
        count = len(self.deletion["random"])
        head = f"mean ± sd of {count} pictures; a faithful map has less deletion and more insertion than a random one"
        return "\n".join([head, f"{'map':9} {'deletion':>15} {'insertion':>16}", *rows])


def _spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else 0.0
