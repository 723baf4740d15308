"""A small real data set that the tests draw themselves: discs and crosses in random places and colours."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from zoo.training.recipe import Recipe

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


PICTURES = {"train_batch0.jpg", "val_batch0_pred.jpg", "results.png", "confusion_matrix.png"}
"""What a run leaves to be looked at, beside its report."""


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


def rods_and_balls_of(count: int, side: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Rods along a random axis (0) and balls (1) in random places: booleans (N, D, H, W), and labels."""
    rng = np.random.default_rng(3)
    place = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    volumes = []
    for k in range(count):
        away = np.abs(place - rng.integers(3, side - 3, 3))
        rod = np.delete(away, rng.integers(3), axis=-1).max(-1) < 1
        volumes.append((away**2).sum(-1) < 6 if k % 2 else rod)
    return np.stack(volumes), np.arange(count) % 2


def draw_volumes(root: Path, parts: Iterable[str] = ("train", "val"), count: int = 24, size: int = 16) -> Path:
    """Such volumes as class folders of .npy files, `count` a class."""
    for part in parts:
        for k, (volume, label) in enumerate(zip(*rods_and_balls_of(2 * count, size), strict=True)):
            folder = root / part / ("rod", "ball")[label]
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{k}.npy", volume)
    return root


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv of a run."""
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
