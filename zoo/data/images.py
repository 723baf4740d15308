"""Images with labels, and how one is read."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class DataError(ValueError):
    """The data is missing, empty or unreadable: a mistake for the user to mend, told in one line."""


@dataclass(frozen=True)
class Encoded:
    """An image file that lies inside another file."""

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


Source = Path | Encoded | Image.Image


class Images(Dataset[tuple[Any, int]]):
    """Images (files, encoded files or PIL images) with class indices."""

    def __init__(self, images: Sequence[Any], labels: Sequence[int]) -> None:
        self.images, self.labels = list(images), [int(label) for label in labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.read(self.images[index]), self.labels[index]

    def read(self, image: Any) -> Any:
        """One of them. Raises DataError with its name."""
        return read_image(image)

    def take(self, indices: Sequence[int]) -> "Images":
        """Those images, in that order."""
        return type(self)([self.images[i] for i in indices], [self.labels[i] for i in indices])


def open_image(image: Path | Encoded) -> Image.Image:
    """An image as Pillow opens it, not yet decoded; the caller closes it."""
    return Image.open(io.BytesIO(image.content) if isinstance(image, Encoded) else image)


def read_image(image: Source) -> Image.Image:
    """An RGB image, read whole. Raises DataError with the image's name."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with open_image(image) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = "it is no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"cannot read the image {image}: {reason}; repair it or take it out") from None


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The files named, and the images below the folders named. Raises DataError for a path that is not there."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS)
        elif path.is_file():
            yield path
        else:
            raise DataError(f"there is no file or folder {path}")
