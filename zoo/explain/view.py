"""What a network says of one picture, and what its attention did: all that a figure shows, and that the files hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.explain.cam import grad_cam, has_torchcam
from zoo.explain.maps import GateMaps, attention_maps
from zoo.explain.picture import Picture
from zoo.explain.watching import ExplainError, at_rest
from zoo.inference import Trained

STILL = 0.01
"""A map whose values differ by less than this share of its start, from the least to the largest, is called constant."""


@dataclass(frozen=True)
class View:
    """One network before one picture."""

    name: str
    classes: tuple[tuple[str, float], ...]
    """The most probable ones and their probabilities."""
    maps: Mapping[str, GateMaps]
    """By the path of the attention; empty for a network without."""
    cam: Tensor | None
    """Grad-CAM of the most probable class, (H, W), from 0 to 1; None without torchcam."""

    @property
    def stages(self) -> dict[str, GateMaps]:
        """The last attention of each stage, a stage being what works on maps of one size."""
        last = {maps.shape[2:]: (path, maps) for path, maps in self.maps.items()}
        return dict(last.values())


def look_at(trained: Trained, picture: Picture, top: int = 5) -> View:
    """Show a picture to a network. Raises ExplainError where its attention cannot be read."""
    network, x = trained.network, picture.x
    with at_rest(network):
        probabilities = network(x).float().softmax(1)[0]
    values, indices = probabilities.topk(min(top, len(probabilities)))
    try:
        maps = attention_maps(network, x)
    except ExplainError:
        maps = {}
    cam = grad_cam(network, x, [int(indices[0])])[0] if has_torchcam() else None
    named = tuple((trained.describe(i), p) for i, p in zip(indices.tolist(), values.tolist(), strict=True))
    return View(_name(trained), named, maps, cam)


def _name(trained: Trained) -> str:
    """A run's or a repository's own name, and what it is."""
    place = Path(trained.source.partition(":")[2].removesuffix("/model"))
    architecture = trained.network.pretrained_cfg.get("architecture", "")
    return f"{place.name}: {architecture}" if place.name else trained.source


def flat(x: Tensor) -> Tensor:
    """A map (H, W) as it is, of a volume's (D, H, W) the middle slice."""
    return x[len(x) // 2] if x.ndim == 3 else x


def is_constant(values: Tensor, start: float) -> bool:
    """Whether a map says next to nothing."""
    reference = abs(start) if start == start else float(values.abs().mean())
    return bool(values.max() - values.min() < STILL * reference)


def mean_map(maps: Mapping[str, GateMaps], size: tuple[int, ...]) -> Tensor | None:
    """What all attention of a network does to places, in one map (B, *size): the mean of its maps, 1 where it starts.

    None where it has no maps over places.
    """
    over_places = [found for found in maps.values() if found.places is not None]
    if not over_places:
        return None
    starts = [found.places_constant if found.places_constant == found.places_constant else 1.0 for found in over_places]
    scaled = [found.upsample(size) / start for found, start in zip(over_places, starts, strict=True)]
    return torch.stack(scaled).mean(0)
