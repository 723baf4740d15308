"""What every source of data gives: images or volumes with class indices, by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.data.images import DataError, Images
from zoo.data.volumes import Volumes, is_volume

PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "eval"),
}
"""What folders, files, arrays and rows of a table may call a part."""
PART_CHOICES = ", ".join(name for names in PART_NAMES.values() for name in names)
WHOLE = "whole"
"""The one part of data that nobody has split."""

LabelledImages = tuple[Sequence[Any], Sequence[Any]]
"""Images or volumes, and the class name or number of each."""


@dataclass(frozen=True)
class Parts:
    """Data as its source has it: any of train, val and test, or WHOLE alone."""

    parts: dict[str, Any]
    """Data sets of (image, class index): map-style ones, or streams."""
    classes: tuple[str, ...]
    """Name of each class index."""
    origins: dict[str, str]
    """Where a part comes from, in words, such as `val/ of the folder`; for WHOLE there may be nothing to say."""


def part_called(name: str) -> str | None:
    """The part that a source means by this name, or None."""
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def labelled(
    found: Mapping[str, LabelledImages], origins: dict[str, str], where: str, classes: tuple[str, ...] = ()
) -> Parts:
    """Parts with class indices in place of class names.

    Without `classes` these are the names in the training part, in sorted order. Raises DataError if there is one class
    only, if another part has a class more, or if images and volumes are mixed.
    """
    classes = classes or _sorted_names(_main_part(found)[1])
    if len(classes) == 1:
        raise DataError(f"{where} has one class only, {classes[0]!r}; to tell classes apart takes at least two")
    index = {name: k for k, name in enumerate(classes)}
    data_set = _data_set_for([image for images, _ in found.values() for image in images], where)
    parts = {}
    for part in sorted(found, key=[*PART_NAMES, WHOLE].index):
        images, names = found[part]
        if unknown := sorted({str(name) for name in names} - set(index)):
            said = origins.get(part) or part
            raise DataError(f"{said} of {where} has classes that train lacks: {', '.join(unknown)}")
        parts[part] = data_set(images, [index[str(name)] for name in names])
    return Parts(parts, classes, origins)


def _main_part(found: Mapping[str, LabelledImages]) -> LabelledImages:
    return found.get("train") or found.get(WHOLE) or next(iter(found.values()))


def _sorted_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Each name once: numbers in the order of numbers, so that 10 comes after 9."""
    numbers = all(isinstance(name, int) or str(name).isdecimal() for name in names)
    return tuple(map(str, sorted(set(names), key=int if numbers else str)))


def _data_set_for(images: Sequence[Any], where: str) -> type[Images]:
    kinds = {is_volume(image) for image in images}
    if len(kinds) > 1:
        raise DataError(f"{where} holds images and volumes; keep them in folders of their own")
    return Volumes if kinds == {True} else Images
