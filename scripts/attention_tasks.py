"""Pictures for the question when a network attends: what decides is small, at any place, among what does not.

`draw_clutter` puts a handwritten digit on a larger canvas among pieces of other digits, `cut_small` a photograph on a
canvas of pieces of other photographs. Both write class folders with the parts train and val, of which neither shares a
digit or a photograph with the other, in its clutter neither.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.data import open_data

CANVAS, DIGIT, PIECES, PIECE = 48, 16, 8, 6
"""Of a digit in clutter, in pixels: side of the canvas and of the digit, number and side of the pieces around it."""
TIMES = {"train": 2, "val": 1}
"""Canvases a digit."""
SCENE, PHOTOGRAPH, PATCH = 128, 56, 32
"""Of a photograph cut small, in pixels: side of the canvas, of the photograph and of the pieces around it."""


def draw_clutter(folder: Path) -> Path:
    """scikit-learn's digits in clutter, 10 classes, 2876 images to train with and 359 held out."""
    data = open_data("digits")
    for seed, (part, images) in enumerate({"train": data.train, "val": data.val}.items()):
        random = np.random.default_rng(seed)
        pairs = [(image.convert("L").resize((DIGIT, DIGIT)), label) for image, label in _pairs(images)]
        digits = [np.asarray(image) for image, _ in pairs]
        for number, (digit, (_, label)) in enumerate(zip(digits, pairs, strict=True)):
            for copy in range(TIMES[part]):
                canvas = np.zeros((CANVAS, CANVAS), np.uint8)
                for _ in range(PIECES):
                    other = digits[random.integers(len(digits))]
                    _paste(canvas, _piece(other, PIECE, random), random)
                _paste(canvas, digit, random)
                _save(Image.fromarray(canvas), folder / part / str(label) / f"{number}-{copy}.png")
    return folder


def cut_small(source: str, folder: Path) -> Path:
    """The photographs of a class folder, each once, small, at a random place."""
    data = open_data(source)
    for seed, (part, images) in enumerate({"train": data.train, "val": data.val}.items()):
        random = np.random.default_rng(seed)
        pairs = [(_square(image), label) for image, label in _pairs(images)]
        photographs = [np.asarray(image) for image, _ in pairs]
        for number, (photograph, (_, label)) in enumerate(zip(photographs, pairs, strict=True)):
            scene = np.zeros((SCENE, SCENE, 3), np.uint8)
            for top in range(0, SCENE, PATCH):
                for left in range(0, SCENE, PATCH):
                    other = photographs[random.integers(len(photographs))]
                    scene[top : top + PATCH, left : left + PATCH] = _piece(other, PATCH, random)
            _paste(scene, photograph, random)
            _save(Image.fromarray(scene), folder / part / f"{label:02}" / f"{number}.png")
    return folder


def _pairs(images: Any) -> Iterator[tuple[Image.Image, int]]:
    return (images[index] for index in range(len(images)))


def _square(image: Image.Image) -> Image.Image:
    return ImageOps.fit(image.convert("RGB"), (PHOTOGRAPH, PHOTOGRAPH), Image.Resampling.BICUBIC)


def _piece(image: Any, side: int, random: Any) -> Any:
    top, left = random.integers(0, len(image) - side + 1, 2)
    return image[top : top + side, left : left + side]


def _paste(canvas: Any, piece: Any, random: Any) -> None:
    """Onto a random place; what is bright stays, so that a digit does not erase the clutter below it."""
    side = len(piece)
    top, left = random.integers(0, len(canvas) - side + 1, 2)
    place = canvas[top : top + side, left : left + side]
    place[...] = np.maximum(place, piece) if canvas.ndim == 2 else piece


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
