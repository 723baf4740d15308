"""What happens to whole batches on the device: crop and flip, normalise, erase, mix. No host in it, no synchronisation.

Draws are made for the whole update and cut to the process's share, so they do not depend on the number of processes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from timm.data import Mixup
from torch import Tensor

ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
"""Area and aspect of an erased rectangle: Zhong et al. 2017, arXiv 1708.04896, and timm's defaults."""


def crop_and_flip(
    images: Tensor,
    indices: Tensor,
    size: Sequence[int],
    padding: int,
    flips: Sequence[float],
    part: slice,
    draw: torch.Generator,
) -> Tensor:
    """Random crops (B, *size, C) of black-padded images or volumes, some of them mirrored, in one gather.

    `images` (N, H, W, C) or (N, D, H, W, C), uint8; `indices` (U,) are the images of the update, and `part` says which
    of them to make. `flips` are the shares to mirror along each of the last axes of `size`. The same crops as
    torchvision's RandomCrop(size, padding) and RandomHorizontalFlip.
    """
    count, device, axes = len(indices), images.device, len(size)
    place = torch.rand(count, axes, generator=draw, device=device)[part]
    turn = torch.rand(count, len(flips), generator=draw, device=device)[part]
    places, inside = [], torch.ones((), dtype=torch.bool, device=device)
    # Numbers, not a tensor of them: bringing one to the device would wait for all that is queued there.
    for axis, (length, side) in enumerate(zip(images.shape[1:-1], size, strict=True)):
        first = (place[:, axis, None] * (length + 2 * padding - side + 1)).long() - padding
        along = torch.arange(side, device=device)
        if (flip := axis - axes + len(flips)) >= 0:
            along = torch.where(turn[:, flip, None] < flips[flip], along.flip(0), along)
        where = (first + along).view(-1, *(side if k == axis else 1 for k in range(axes)))
        inside = inside & (where >= 0) & (where < length)
        places.append(where.clamp(0, length - 1))
    return images[(indices[part].view(-1, *[1] * axes), *places)] * inside[..., None]


def normaliser(
    mean: Sequence[float], std: Sequence[float], device: torch.device, layout: torch.memory_format, axes: int = 2
) -> Callable[[Tensor], Tensor]:
    """uint8 images (B, C, H, W) to normalised ones on `device`; `mean` and `std` are of pixels in [0, 1].

    Volumes (B, C, D, H, W) have 3 `axes`.
    """
    shape = (1, -1, *[1] * axes)
    middle, spread = (torch.tensor(values, device=device).view(shape) * 255 for values in (mean, std))

    def normalise(images: Tensor) -> Tensor:
        moved = images.to(device, torch.float32, non_blocking=True, memory_format=layout)
        return moved.sub_(middle).div_(spread)

    return normalise


def erase(images: Tensor, share: float, count: int, part: slice, draw: torch.Generator) -> Tensor:
    """Set a random rectangle of a `share` of the images (B, C, H, W) to the mean, which is 0; timm's RandomErasing.

    `count` is the number of images of the update, of which these are `part`.
    """
    height, width = images.shape[2:]
    device = images.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draw, device=device)[part]

    chosen = uniform(0, 1) < share
    area = height * width * uniform(*ERASED_AREA)
    ratio = torch.exp(uniform(*map(math.log, ERASED_RATIO)))
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    # timm draws anew where a rectangle is too large; here its long side is cut, which is as rare.
    tall, wide = tall.clamp(max=height - 1), wide.clamp(max=width - 1)
    top, left = (uniform(0, 1) * (height - tall + 1)).floor(), (uniform(0, 1) * (width - wide + 1)).floor()
    return images.mul_(~(_rectangle(top, tall, left, wide, height, width) & chosen[:, None, None])[:, None])


def cut_out(images: Tensor, side: int, count: int, part: slice, draw: torch.Generator) -> Tensor:
    """Set a square of `side` pixels around a random pixel of each image to the mean: DeVries & Taylor, 1708.04552."""
    height, width = images.shape[2:]
    centre = torch.rand(count, 2, generator=draw, device=images.device)[part]
    top, left = (centre[:, 0] * height).floor() - side // 2, (centre[:, 1] * width).floor() - side // 2
    length = torch.full_like(top, side)
    return images.mul_(~_rectangle(top, length, left, length, height, width)[:, None])


def _rectangle(top: Tensor, tall: Tensor, left: Tensor, wide: Tensor, height: int, width: int) -> Tensor:
    """Masks (B, height, width), true inside rectangles given by (B,) corners and sides."""
    rows, columns = torch.arange(height, device=top.device), torch.arange(width, device=top.device)
    down = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return down[:, :, None] & across[:, None, :]


def mixer(
    mixup: float, cutmix: float, smoothing: float, classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and class indices to images and soft targets (B, classes); timm's mixup and cutmix, one draw a batch."""
    if mixup or cutmix:
        return Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=classes)
    low = smoothing / classes

    def soften(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        soft = torch.full((len(labels), classes), low, device=images.device)
        return images, soft.scatter_(1, labels[:, None], 1 - smoothing + low)

    return soften
