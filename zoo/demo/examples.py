"""Pictures to try without having one: the photographs and digits that scikit-learn brings along."""

from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.kinds import VOLUMES
from zoo.inference import Trained

DIGITS = (0, 3, 7)
"""Indices of digits in scikit-learn's set."""


def write_examples(trained: Trained, folder: Path) -> list[Path]:
    """Files in `folder`: two photographs and three digits; of volumes two that are drawn."""
    return _volumes(folder, trained) if trained.spec.kind is VOLUMES else _photographs(folder) + _digits(folder)


def _photographs(folder: Path) -> list[Path]:
    from sklearn.datasets import load_sample_images

    found = []
    for name, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        found.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(found[-1])
    return found


def _digits(folder: Path) -> list[Path]:
    from sklearn.datasets import load_digits

    pixels, found = load_digits(return_X_y=True)[0], []
    for index in DIGITS:
        found.append(folder / f"digit-{index}.png")
        Image.fromarray((pixels[index].reshape(8, 8) * 15.9375).astype(np.uint8)).save(found[-1])
    return found


def _volumes(folder: Path, trained: Trained) -> list[Path]:
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in trained.spec.size], indexing="ij"))
    found = []
    for name, inside in (("ball", (place**2).sum(0) < 0.4), ("rod", (place[1:] ** 2).sum(0) < 0.1)):
        found.append(folder / f"{name}.npy")
        np.save(found[-1], (inside * 255).astype(np.uint8))
    return found
