"""A picture as a person sees it and as the network does: which part of it went in, and where that lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from zoo.data import DataError, read_image
from zoo.data.input_spec import InputSpec
from zoo.data.kinds import VOLUMES
from zoo.data.sheet import denormalised

LARGEST = 640
"""Pixels of the longer side, as it is shown."""


@dataclass(frozen=True)
class Picture:
    """A file, ready to be shown and to be put into a network."""

    shown: np.ndarray
    """(H, W, 3), uint8: the upright picture; of a volume the middle slice, as the network takes it."""
    box: tuple[float, float, float, float]
    """What the network saw of it: left, top, right and bottom, in pixels of `shown`; beyond its edge where padded."""
    x: Tensor
    """(1, C, H, W) or (1, C, D, H, W), normalised."""
    said: str
    """Its size, in words."""


def open_picture(file: Path, config: Mapping[str, Any], spec: InputSpec) -> Picture:
    """Raises DataError with the name of a file that cannot be read."""
    if spec.kind is VOLUMES:
        return _middle_slice(spec.kind.reader(config, spec.shape)(file), config)
    image = read_image(file)
    if min(image.size) < 2:
        raise DataError(f"{file} is {image.width}x{image.height} pixels: there is nothing on it to be seen")
    x: Any = create_transform(**config)(image)  # pyright: ignore[reportCallIssue]
    shown = image.copy()
    shown.thumbnail((LARGEST, LARGEST))
    size = f"{image.width}x{image.height} pixels"
    return Picture(np.asarray(shown), seen_box(config, shown.size), x[None], size)


def seen_box(config: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Which part of a picture of (width, height) timm's transform of this config takes: left, top, right, bottom.

    Two pictures whose pixels say where they lie go through the same resizing and cropping, whatever it is; what is a
    quarter in from the edges says the scale and the offset.
    """
    steps = [step for step in create_transform(**config).transforms if type(step).__name__ not in NO_GEOMETRY]  # pyright: ignore
    for step in steps:
        if hasattr(step, "fill"):  # a colour, and these pictures have one channel
            step.fill = 0
    ends = []
    for axis, length in enumerate(size):
        along = np.arange(length, dtype=np.float32) + 0.5
        places = np.broadcast_to(along if axis == 0 else along[:, None], size[::-1])
        image: Any = Image.fromarray(np.ascontiguousarray(places))
        for step in steps:
            image = step(image)
        line = np.asarray(image)
        line = line[line.shape[0] // 2] if axis == 0 else line[:, line.shape[1] // 2]
        first, last = len(line) // 4, len(line) - 1 - len(line) // 4
        scale = (line[last] - line[first]) / max(1, last - first)
        ends.append(
            (float(line[first] - scale * (first + 0.5)), float(line[first] + scale * (len(line) - first - 0.5)))
        )
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


NO_GEOMETRY = ("ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToNumpy", "Normalize")
"""Steps of a transform that move no pixel."""


def _middle_slice(x: Tensor, config: Mapping[str, Any]) -> Picture:
    depth, height, width = x.shape[1:]
    shown = denormalised(x[None], config)[0]
    words = f"slice {depth // 2 + 1} of {depth}, {height}x{width} voxels"
    return Picture(shown, (0, 0, width, height), x[None], words)
