"""Data by one string: `digits`, or a folder of class folders. Two lists of images with labels come out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
TRAIN, HELD_OUT = ("train", "training"), ("val", "validation", "valid", "test", "testing")


class DataError(ValueError):
    """The data is missing, empty or unreadable."""

    def __init__(self, message: str) -> None:
        # A loader process hands an error on with its traceback in front; the last line is what was said.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.DataError: "))


class Images(Dataset):
    """Images (files or PIL images) with class indices; `transform` is set by timm's loader."""

    def __init__(self, images: Sequence[Path | Image.Image], labels: Sequence[int]) -> None:
        self.images, self.labels = list(images), [int(label) for label in labels]
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = read_image(self.images[index])
        return (self.transform(image) if self.transform else image), self.labels[index]


@dataclass(frozen=True)
class Data:
    """A data set with its held-out part."""

    train: Images
    val: Images
    classes: tuple[str, ...]
    """Name of each class index."""
    split: str
    """Where the held-out part comes from, in words."""


def read_image(image: Path | Image.Image) -> Image.Image:
    """An RGB image, read whole. Raises DataError with the file's name."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        reason = "it is no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"cannot read the image {image}: {reason}; repair it or take it out") from None


def open_data(name: str, val_fraction: float = 0.2) -> Data:
    """Open the data set called `name`. Where it has no held-out part, a stratified `val_fraction` of it is split off.

    The split is the same for every training seed. Raises DataError.
    """
    return _digits(val_fraction) if name == "digits" else _folder(Path(name), val_fraction)


def open_held_out(name: str) -> tuple[Images, tuple[str, ...]]:
    """The images to evaluate on and their class names: the held-out part, or all of a folder that has none."""
    root = Path(name)
    if name == "digits" or (root.is_dir() and _part(root, TRAIN)):
        data = open_data(name)
        return data.val, data.classes
    if not root.is_dir():
        raise DataError(f"data {name!r} is neither 'digits' nor a folder; give a folder of class folders")
    files, labels, classes = _class_folders(_part(root, HELD_OUT) or root)
    return Images(files, labels), classes


def _part(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder right below `root` that one of `names` calls, in any case of letters."""
    parts = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return next((parts[name] for name in names if name in parts), None)


def _digits(val_fraction: float) -> Data:
    """1797 handwritten digits of 43 people, 8x8 pixels in 17 greys (UCI, in scikit-learn), grown to 32x32."""
    from sklearn.datasets import load_digits

    greys, labels = load_digits(return_X_y=True)
    pixels = (greys.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(pixel).resize((32, 32), Image.Resampling.BICUBIC) for pixel in pixels]
    return _split(images, labels.tolist(), tuple("0123456789"), val_fraction)


def _folder(root: Path, val_fraction: float) -> Data:
    if not root.is_dir():
        raise DataError(f"data {str(root)!r} is neither 'digits' nor a folder; give a folder of class folders")
    train, held_out = _part(root, TRAIN), _part(root, HELD_OUT)
    if train is None:
        files, labels, classes = _class_folders(root)
        return _split(files, labels, classes, val_fraction)
    files, labels, classes = _class_folders(train)
    if held_out is None:
        return _split(files, labels, classes, val_fraction)
    val_files, val_labels, val_classes = _class_folders(held_out)
    if unknown := sorted(set(val_classes) - set(classes)):
        raise DataError(f"{held_out} has classes that {train} lacks: {', '.join(unknown)}")
    names = [val_classes[label] for label in val_labels]
    val = Images(val_files, [classes.index(name) for name in names])
    return Data(Images(files, labels), val, classes, f"{held_out.name}/ of the folder")


def _class_folders(root: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Files, labels and class names of a folder of class folders, in sorted order."""
    found = {
        folder.name: sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    classes = tuple(name for name, files in found.items() if files)
    if not classes:
        raise DataError(f"{root} holds no images in class folders, such as {root / 'cat' / '1.jpg'}")
    if empty := [name for name in found if name not in classes]:
        raise DataError(f"{root} has class folders without an image: {', '.join(empty)}; fill or remove them")
    if len(classes) == 1:
        raise DataError(f"{root} has one class only, {classes[0]!r}; to tell classes apart takes at least two")
    files = [path for name in classes for path in found[name]]
    labels = [index for index, name in enumerate(classes) for _ in found[name]]
    return files, labels, classes


def _split(images: Sequence[Any], labels: Sequence[int], classes: tuple[str, ...], val_fraction: float) -> Data:
    from sklearn.model_selection import train_test_split

    counts = Counter(labels)
    if few := [classes[label] for label, count in counts.items() if count < 2]:
        raise DataError(f"one image is too few to split for {', '.join(few)}; add images or a val/ folder")
    wanted = max(round(val_fraction * len(labels)), len(classes))
    rest, held_out = train_test_split(range(len(labels)), test_size=wanted, stratify=labels, random_state=0)
    train, val = (
        Images([images[i] for i in part], [labels[i] for i in part]) for part in (sorted(rest), sorted(held_out))
    )
    return Data(train, val, classes, f"a stratified {len(val)} of {len(labels)} images, the same for every seed")
