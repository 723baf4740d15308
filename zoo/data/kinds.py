"""What differs between images and volumes, in one object each.

A network takes one kind and a data set holds one; whoever works with both asks the kind, and nobody else needs to know
which it is.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Kind:
    """Images (B, C, H, W) or volumes (B, C, D, H, W)."""

    name: str
    one: str
    """One of them, in a sentence."""
    many: str
    unit: str
    """Of a size: pixels or voxels."""
    axes: int
    """Of space: 2 or 3."""
    sizes: str
    """What a recipe's `image_size` may be, in words."""
    example: str
    """A model that takes this kind."""
    channels_last: torch.memory_format


IMAGES = Kind(
    name="images",
    one="image",
    many="images",
    unit="pixels",
    axes=2,
    sizes="a side or [H, W]",
    example="cbam_resnet18",
    channels_last=torch.channels_last,
)
VOLUMES = Kind(
    name="volumes",
    one="volume",
    many="volumes",
    unit="voxels",
    axes=3,
    sizes="[D, H, W]",
    example="cbam_resnet18_volume",
    channels_last=torch.channels_last_3d,
)
