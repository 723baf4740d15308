"""Images with labels, and how one is read."""

import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from zoo.data.pixels import upright_rgb
from zoo.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class DataError(UserError, ValueError):
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


NO_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def require_file(path: Path) -> None:
    """Raise OSError in words if this is no file: to open a FIFO would wait for whoever writes into it."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        said = f"it is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "it is not there"
        raise FileNotFoundError(said) from None
    if kind in NO_FILES:
        raise OSError(f"it is no file but {NO_FILES[kind]}")


def open_image(image: Path | Encoded) -> Image.Image:
    """An image as Pillow opens it, not yet decoded; the caller closes it. Raises whatever Pillow raises."""
    if isinstance(image, Encoded):
        return Image.open(io.BytesIO(image.content))
    require_file(image)
    return Image.open(image)


def read_image(image: Source) -> Image.Image:
    """An RGB image, upright and read whole (zoo/data/pixels.py). Raises DataError with the image's name."""
    try:
        if isinstance(image, Image.Image):
            return upright_rgb(image)
        with open_image(image) as opened:
            return upright_rgb(opened)
    except Exception as error:  # on damaged files Pillow raises whatever it meets, from struct.error to IndexError
        named = "in memory" if isinstance(image, Image.Image) else image
        raise DataError(f"cannot read the image {named}: {what_is_wrong(error)}") from None


def what_is_wrong(error: Exception) -> str:
    """Why an image could not be read, and what to do, in words."""
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than {most / 1e6:.0f} million pixels, the most that Pillow reads; shrink it or take it out"
    if isinstance(error, UnidentifiedImageError):
        reason = "it is no image that Pillow knows"
    elif isinstance(error, OSError | ValueError | SyntaxError) and str(error):
        reason = str(error)
    else:
        reason = f"{type(error).__name__} {error}".rstrip()
    return f"{reason}; repair it or take it out"


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The files named, and the images below the folders named. Raises DataError for a path that is not there."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS)
        elif path.is_file():
            yield path
        else:
            raise DataError(f"there is no file or folder {path}")
