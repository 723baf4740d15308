"""What an interrupted run knows of its data, so that it goes on with the same images in the same parts and classes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from zoo.data.found_again import find_again, some
from zoo.data.images import DataError, Encoded, Images
from zoo.data.listing import SKIPPED, Listed, are_files, sizes_of
from zoo.data.sources.parts import Parts, in_order_of_texts

MEND = "put it back as it was, or start a new run"


@dataclass(frozen=True)
class Record:
    """A run's split.csv, and what its checkpoint says of the data."""

    listed: tuple[Listed, ...] = ()
    """Empty where the images are no files of their own."""
    classes: tuple[str, ...] = ()
    """In the order of the class indices."""
    digest: str = ""
    """`digest_of` the data."""
    from_before: bool = False
    """A run of a zoo that wrote down no classes, and sorted their names as texts."""

    def lists(self, source: Parts) -> bool:
        """Whether this says of each image which part it is in."""
        return are_files(source.parts) and any(row.split != SKIPPED for row in self.listed)

    def restore(self, source: Parts, name: str) -> tuple[Parts, tuple[str, ...]]:
        """The data called `name` in the run's parts and order of classes, and the images that the run leaves out.

        Raises DataError that names what has changed.
        """
        skipped = tuple(row.path for row in self.listed if row.split == SKIPPED) if are_files(source.parts) else ()
        if self.lists(source):
            found = find_again(source, self.listed)
            if found is None:
                raise DataError(f"{name} has none of the images of this run, such as {self.listed[0].path}; {MEND}")
            if found.changes:
                raise DataError(f"{name} is not what this run was split from. {found.changes}; {MEND}")
            source = found.as_parts(source)
        elif self.digest and self.digest != digest_of(source):
            raise DataError(f"{name} holds other images or labels than this run began with; {MEND}")
        elif skipped:
            source = _without(source, set(skipped))
        return self._in_order(source, name), skipped

    def _in_order(self, source: Parts, name: str) -> Parts:
        classes = self.classes or source.classes
        if self.from_before and source.by_name:
            classes = in_order_of_texts(source.classes)
        if set(classes) != set(source.classes):
            there, known = some(source.classes, 5), some(classes, 5)
            raise DataError(f"{name} has the classes {there}, and this run {known}; {MEND}")
        return source if classes == source.classes else _reorder(source, classes)


def _reorder(source: Parts, classes: tuple[str, ...]) -> Parts:
    """The same data with its classes in this order."""
    if not all(isinstance(images, Images) for images in source.parts.values()):
        raise DataError(f"the data has the classes {some(source.classes, 5)} in another order than this run")
    index = [classes.index(name) for name in source.classes]
    parts = {
        part: type(images)(images.images, [index[label] for label in images.labels])
        for part, images in source.parts.items()
    }
    return replace(source, parts=parts, classes=classes)


def _without(source: Parts, left_out: set[str]) -> Parts:
    kept = {
        part: images.take([k for k, at in enumerate(images.images) if str(at.absolute()) not in left_out])
        for part, images in source.parts.items()
    }
    return replace(source, parts=kept)


def digest_of(source: Parts) -> str:
    """A hash of the labels, of the names and sizes of files, and of the content of images that are no files.

    Of data that is read by timm or torchvision, and of shards, it is one of the classes and the number of images alone.
    """
    whole = hashlib.blake2b(digest_size=16)
    for part, images in source.parts.items():
        whole.update(repr((part, sorted(source.classes))).encode())
        if isinstance(images, Images):
            for told, label in zip(_told(images), images.labels, strict=True):
                whole.update(repr((source.classes[label], told)).encode())
        else:
            whole.update(repr(_length(images)).encode())
    return whole.hexdigest()


def tells_images_apart(source: Parts) -> bool:
    """Whether data of the same `digest_of` is the same data."""
    return all(isinstance(images, Images) for images in source.parts.values())


def _told(images: Images) -> Iterator[Any]:
    """What tells each image from others."""
    sizes = iter(sizes_of([str(image) for image in images.images if isinstance(image, Path)]))
    for image in images.images:
        yield (image.name, next(sizes)) if isinstance(image, Path) else _content(image)


def _content(image: Encoded | Image | np.ndarray) -> Any:
    """Of an image or a volume in memory."""
    if isinstance(image, Encoded):
        return hashlib.blake2b(image.content, digest_size=16).hexdigest()
    values = np.asarray(image)
    return values.shape, str(values.dtype), hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


def _length(images: Any) -> int | None:
    try:
        return len(images)
    except TypeError:  # a stream
        return None
