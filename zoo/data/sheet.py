"""What went into a network, made visible again: images out of normalised tensors, and a sheet of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLUMNS, SIDE, LINE = 4, 160, 18
"""Of a sheet: images in a row, pixels of the longer side of one, pixels of its caption."""


def denormalised(x: Tensor, config: Mapping[str, Any]) -> np.ndarray:
    """Normalised images (B, C, H, W) as they were: (B, H, W, 3), uint8; of volumes the middle slices.

    `config` has their `mean` and `std`. One channel is shown in grey.
    """
    if x.ndim == 5:
        x = x[:, :, x.shape[2] // 2]
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    pixels = ((x.detach().float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def sheet(images: np.ndarray, captions: Sequence[str] = ()) -> Image.Image:
    """Images (B, H, W, 3) in rows on white, each over its caption."""
    height, width = images.shape[1:3]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    below = LINE if captions else 0
    rows = -(-len(images) // COLUMNS)
    whole = Image.new("RGB", (min(COLUMNS, len(images)) * (SIDE + 8), rows * (size[1] + below + 8)), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for k, pixels in enumerate(images):
        left, top = (k % COLUMNS) * (SIDE + 8) + 4, (k // COLUMNS) * (size[1] + below + 8) + 4
        shown = Image.fromarray(pixels).resize(
            size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
        )
        whole.paste(shown, (left, top))
        if captions:
            pen.text((left, top + size[1] + 1), captions[k][:26], fill="black", font=font)
    return whole
