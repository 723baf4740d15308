"""A small real data set that the tests draw themselves: discs and crosses in random places and colours."""

import csv
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from zoo.recipe import Recipe

TINY = Recipe(
    model="cbam_resnet20_cifar",
    data="",
    epochs=4,
    batch_size=16,
    image_size=16,
    lr=5e-3,
    crop_scale=0.8,
    hflip=0.0,
    workers=0,
    device="cpu",
)


def draw_shapes(root: Path, parts: Iterable[str] = ("train", "val"), count: int = 24, size: int = 24) -> Path:
    """Folders of class folders, `count` images a class; an image of `size` pixels."""
    generator = torch.Generator().manual_seed(5)
    for part in parts:
        for name in ("cross", "disc"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                x, y, red, green = torch.randint(4, 14, (4,), generator=generator).tolist()
                image = Image.new("RGB", (24, 24))
                pen, colour = ImageDraw.Draw(image), (80 + 10 * red, 80 + 10 * green, 200)
                if name == "disc":
                    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
                else:
                    pen.line((x - 4, y - 4, x + 4, y + 4), fill=colour, width=2)
                    pen.line((x - 4, y + 4, x + 4, y - 4), fill=colour, width=2)
                image.resize((size, size)).save(folder / f"{k}.png")
    return root


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv of a run."""
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
