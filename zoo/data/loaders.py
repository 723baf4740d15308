"""Batches for training and evaluation, from loader processes, from a stream, or from a tensor on the device.

The three kinds of training batches have the same face: `updates` an epoch, and `epoch(epoch, start)`, which gives
micro-batches of uint8 images (B, C, H, W) and class indices (B,) from the update `start` on. Those from a stream are in
zoo/data/streams.py.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from timm.data import create_transform
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio, str_to_interp_mode
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import CenterCrop, Compose, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize

from zoo.data.augment import crop_and_flip, normaliser
from zoo.data.images import DataError, Images, open_image, read_image
from zoo.data.order import Batches, Share, generator, seed_of
from zoo.data.pixels import orientation
from zoo.data.streams import Stream
from zoo.data.worker_errors import Loader

LARGEST_ON_DEVICE = 2**31
"""Bytes of pixels up to which a training set may live on the device by itself."""

MOST_WORKERS = 32
"""Loader processes that any machine can have; more are for more cores."""

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Any], Any]


def require_workers(workers: int) -> None:
    """Raise DataError for more loader processes than this machine can feed, which would take all its memory."""
    cores = os.cpu_count() or 1
    if workers > (most := max(MOST_WORKERS, 4 * cores)):
        raise DataError(f"{workers} workers are more than {cores} cores can feed; take at most {most}")


class TrainingBatches(Protocol):
    """What the loop needs."""

    updates: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


def training_transform(
    config: dict[str, Any],
    size: tuple[int, int],
    *,
    crop_scale: float = 0.08,
    crop_padding: int = 0,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float = 0.0,
    auto_augment: str = "",
) -> Transform:
    """A PIL image to a uint8 array (C, *size): timm's training transform, or a crop of the padded image.

    An image of another size is first brought to it as the config's `crop_mode` brings held-out ones: by its shorter
    side if it says nothing, squashed only if it says so.
    """
    primary, secondary, final = transforms_imagenet_train(  # pyright: ignore
        size,
        use_prefetcher=True,
        separate=True,
        scale=(crop_scale, 1.0),
        ratio=(1.0, 1.0) if crop_scale == 1 else None,
        hflip=hflip,
        vflip=vflip,
        color_jitter=color_jitter or None,  # pyright: ignore
        auto_augment=auto_augment or None,
        force_color_jitter=color_jitter > 0,  # or timm leaves it out beside most of auto_augment
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
    )
    whole = crop_scale == 1 and (config.get("crop_mode") == "squash" or size[0] != size[1])  # timm would cut a square
    if crop_padding or whole:
        flips = [RandomHorizontalFlip(hflip), *([RandomVerticalFlip(vflip)] if vflip else [])]
        to_size = TO_SIZE.get(config.get("crop_mode", ""), _cover)(size, config["interpolation"])
        crop = RandomCrop(size, crop_padding) if crop_padding else CenterCrop(size)
        primary = Compose([*to_size, crop, *flips])
    return Compose([primary, secondary, final])


def _cover(size: tuple[int, int], interpolation: str) -> list[Transform]:
    return [ResizeKeepRatio(size, interpolation=interpolation)]


def _fit_inside(size: tuple[int, int], interpolation: str) -> list[Transform]:
    return [ResizeKeepRatio(size, longest=1.0, interpolation=interpolation), CenterCropOrPad([*size])]


def _squash(size: tuple[int, int], interpolation: str) -> list[Transform]:
    return [Resize(size, str_to_interp_mode(interpolation))]  # pyright: ignore[reportArgumentType]


TO_SIZE = {"squash": _squash, "border": _fit_inside}
"""What timm's `crop_mode` does with the shape of an image; any other covers the size and loses what is beyond it."""


class Augmented(Dataset[tuple[Any, int]]):
    """A data set whose key is (epoch, index): what is random in an image depends on these and the seed alone."""

    def __init__(self, dataset: Any, transforms: Sequence[Transform], seed: int) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, int]:
        epoch, index = key
        image, label = self.dataset[index]
        seed = seed_of("image", self.seed, epoch, index)
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return self.transforms[epoch](image), label


class HostBatches:
    """Decoded and augmented one by one, in loader processes."""

    def __init__(self, dataset: Any, share: Share, transforms: Sequence[Transform], workers: int, pin: bool) -> None:
        self.sampler = Batches(share)
        self.updates = share.updates
        self.loader = Loader(
            Augmented(dataset, transforms, share.seed),
            batch_sampler=self.sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Micro-batches of the epoch from the update `start` on."""
        self.sampler.epoch, self.sampler.start = epoch, start
        yield from self.loader


class DeviceBatches:
    """Out of one uint8 tensor (N, H, W, C) or (N, D, H, W, C) there, cropped and mirrored a batch at a time."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        share: Share,
        size: Sequence[int],
        padding: int,
        flips: Sequence[float],
    ) -> None:
        self.images, self.labels, self.share = images, labels, share
        self.size, self.padding, self.flips = size, padding, flips
        self.updates = share.updates

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Micro-batches of the epoch from the update `start` on."""
        device, size = self.images.device, self.share.batch_size
        order = self.share.order(epoch).to(device)
        for update in range(start, self.updates):
            indices = order[update * size : (update + 1) * size]
            for part in self.share.parts():
                draw = generator(device, "crop", self.share.seed, epoch, update)
                crops = crop_and_flip(self.images, indices, self.size, self.padding, self.flips, part, draw)
                yield crops.movedim(-1, 1), self.labels[indices[part]]


def one_size(dataset: Any) -> tuple[int, int] | None:
    """(H, W) of the images if all are of one size and fit on a device together, else None. Reads their heads."""
    if not isinstance(dataset, Images) or not len(dataset):
        return None
    width, height = first = _size(dataset, 0)
    if 3 * height * width * len(dataset) > LARGEST_ON_DEVICE:
        return None
    return (height, width) if all(_size(dataset, k) == first for k in range(len(dataset))) else None


def _size(dataset: Images, index: int) -> tuple[int, int]:
    image = dataset.images[index]
    if isinstance(image, PIL.Image.Image):
        return image.size
    with suppress(Exception), open_image(image) as opened:
        if opened.width == opened.height or orientation(opened) == 1:
            return opened.size
    return read_image(image).size  # upright, or says what is wrong with it


def stack_images(dataset: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """All images of one size as uint8 (N, H, W, C), and their class indices (N,)."""
    pixels = np.stack([np.asarray(dataset[k][0]) for k in range(len(dataset))])
    return torch.from_numpy(pixels).to(device), torch.tensor(dataset.labels, device=device)


class HeldOut(Iterable[Batch]):
    """Normalised batches of a held-out part, in order; of this process's share if there are several."""

    def __init__(
        self,
        dataset: Any,
        config: dict[str, Any],
        batch_size: int,
        workers: int,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        keys = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
        transform: Any = create_transform(**{key: config[key] for key in keys if key in config}, use_prefetcher=True)
        if isinstance(dataset, Stream):
            share: Any = dataset.for_measuring(rank, world, transform)
            workers = min(workers, dataset.shards)
        else:
            indices = range(rank, len(dataset), world)
            share = _Transformed(dataset if world == 1 else Subset(dataset, indices), transform)
        self.loader = Loader(
            share,
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        self.normalise, self.device = normaliser(config["mean"], config["std"], device, layout), device

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in self.loader:
            yield self.normalise(images), labels.to(self.device, non_blocking=True)


class _Transformed(Dataset[tuple[Any, int]]):
    def __init__(self, dataset: Any, transform: Any) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.dataset[index]
        return self.transform(image), label


class HeldOutOnDevice(Iterable[Batch]):
    """The same out of a uint8 tensor (N, H, W, C) or (N, D, H, W, C) on the device."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        normalise: Callable[[Tensor], Tensor],
        batch_size: int,
        rank: int,
        world: int,
    ) -> None:
        self.images, self.labels = images[rank::world], labels[rank::world]
        self.normalise, self.batch_size = normalise, batch_size

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalise(images.movedim(-1, 1)), labels
