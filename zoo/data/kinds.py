"""What differs between images and volumes, in one object each.

A network takes one kind and a data set holds one. Whoever works with both asks the kind; nobody else needs to know
which it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.data import create_transform
from torch import Tensor

from zoo.data.augment import normaliser
from zoo.data.images import find_images, read_image
from zoo.data.loaders import Batch, HeldOut, HeldOutOnDevice, stack_images
from zoo.data.volumes import Volumes, find_volumes, fit, read_volume

Reader = Callable[[Path], Tensor]
"""A file to the input of a network, (C, H, W) or (C, D, H, W), normalised."""


@dataclass(frozen=True)
class Way:
    """How held-out batches come to a network."""

    device: torch.device
    batch_size: int
    workers: int = 0
    """Loader processes, where there are any."""
    layout: torch.memory_format = torch.contiguous_format
    rank: int = 0
    """Of this process among `world` many, each of which takes its share."""
    world: int = 1


class Kind(ABC):
    """Images (B, C, H, W) or volumes (B, C, D, H, W).

    A `config` has what timm's transforms take: input_size, mean, std, interpolation, crop_pct, crop_mode. A `shape` is
    that of the network's input, (C, H, W) or (C, D, H, W).
    """

    name: ClassVar[str]
    one: ClassVar[str]
    """One of them, in a sentence."""
    many: ClassVar[str]
    unit: ClassVar[str]
    """Of a size: pixels or voxels."""
    axes: ClassVar[int]
    """Of space: 2 or 3."""
    sizes: ClassVar[str]
    """What a recipe's `image_size` may be, in words."""
    example: ClassVar[str]
    """A model that takes this kind."""
    channels_last: ClassVar[torch.memory_format]
    mirrors: ClassVar[tuple[str, ...]]
    """Fields of a recipe that are shares to mirror, for each of the last axes, where batches are made on the device."""
    only_on_device: ClassVar[bool]
    """Whether a set always lives on the device as one tensor, so that no loader process is in the way."""

    @abstractmethod
    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        """The files named and those below the folders named. Raises DataError for a path that is not there."""

    @abstractmethod
    def reader(self, config: Mapping[str, Any], shape: tuple[int, ...]) -> Reader:
        """What reads one file for a network. The reader raises DataError with the file's name."""

    @abstractmethod
    def stack(self, dataset: Any, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """A whole data set as uint8 (N, H, W, C) or (N, D, H, W, C) on the device, and its class indices (N,)."""

    @abstractmethod
    def held_out(self, dataset: Any, config: dict[str, Any], shape: tuple[int, ...], way: Way) -> Iterable[Batch]:
        """Normalised batches of a held-out part, in order; of this process's share if there are several."""


class ImageKind(Kind):
    """Images, read and brought to size by timm's transforms."""

    name, one, many, unit = "images", "image", "images", "pixels"
    axes, sizes, example = 2, "a side or [H, W]", "cbam_resnet18"
    channels_last = torch.channels_last
    mirrors = ("hflip",)
    only_on_device = False

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return find_images(paths)

    def reader(self, config: Mapping[str, Any], shape: tuple[int, ...]) -> Reader:
        transform: Any = create_transform(**config)
        return lambda file: transform(read_image(file))

    def stack(self, dataset: Any, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        return stack_images(dataset, device)

    def held_out(self, dataset: Any, config: dict[str, Any], shape: tuple[int, ...], way: Way) -> Iterable[Batch]:
        return HeldOut(dataset, config, way.batch_size, way.workers, way.device, way.layout, way.rank, way.world)


class VolumeKind(Kind):
    """Volumes, brought to size once, by means."""

    name, one, many, unit = "volumes", "volume", "volumes", "voxels"
    axes, sizes, example = 3, "[D, H, W]", "cbam_resnet18_volume"
    channels_last = torch.channels_last_3d
    mirrors = ("dflip", "vflip", "hflip")
    only_on_device = True

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return iter(find_volumes(paths))

    def reader(self, config: Mapping[str, Any], shape: tuple[int, ...]) -> Reader:
        normalise = normaliser(config["mean"], config["std"], torch.device("cpu"), torch.contiguous_format, self.axes)
        return lambda file: normalise(fit(read_volume(file, frames=shape[1]), shape).movedim(-1, 0)[None])[0]

    def stack(self, dataset: Any, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        return dataset.stack(shape, device)

    def held_out(self, dataset: Any, config: dict[str, Any], shape: tuple[int, ...], way: Way) -> Iterable[Batch]:
        normalise = normaliser(config["mean"], config["std"], way.device, way.layout, self.axes)
        pixels, labels = self.stack(dataset, shape, way.device)
        return HeldOutOnDevice(pixels, labels, normalise, way.batch_size, way.rank, way.world)


IMAGES, VOLUMES = ImageKind(), VolumeKind()


def kind_of(dataset: Any) -> Kind:
    """What a data set holds; a reader of timm's holds images."""
    return VOLUMES if isinstance(dataset, Volumes) else IMAGES
