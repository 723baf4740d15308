"""What every source of data gives: images or volumes with class indices, by part."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.utils.misc import natural_key

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

LabelledImages = tuple[Sequence[Any], Sequence[str]]
"""Images or volumes, and the class name of each."""


@dataclass(frozen=True)
class Parts:
    """Data as its source has it: any of train, val and test, or WHOLE alone."""

    parts: dict[str, Any]
    """Data sets of (image, class index): map-style ones, or streams."""
    classes: tuple[str, ...]
    """Name of each class index."""
    origins: dict[str, str]
    """Where a part comes from, in words, such as `val/ of the folder`; for WHOLE there may be nothing to say."""
    by_name: bool = False
    """The classes are in this order because of their names, and not because the source numbers them so."""


def part_called(name: str) -> str | None:
    """The part that a source means by this name, or None."""
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def labelled(
    found: Mapping[str, LabelledImages], origins: dict[str, str], where: str, classes: tuple[str, ...] = ()
) -> Parts:
    """Parts with class indices in place of class names.

    Without `classes` these are the names in the training part, in timm's order. Raises DataError if there is one class
    only, if another part has a class more, if two classes cannot be told apart, if images and volumes are mixed, or if
    a name is not UTF-8.
    """
    by_name = not classes
    classes = classes or in_timms_order(_main_part(found)[1])
    _require_told_apart(classes, where)
    index = {name: k for k, name in enumerate(classes)}
    everything = [image for images, _ in found.values() for image in images]
    _require_utf8(everything, where)
    data_set = _data_set_for(everything, where)
    parts = {}
    for part in sorted(found, key=[*PART_NAMES, WHOLE].index):
        images, names = found[part]
        if unknown := sorted(set(names) - set(index)):
            said = origins.get(part) or part
            raise DataError(f"{said} of {where} has classes that train lacks: {', '.join(unknown)}")
        parts[part] = data_set(images, [index[name] for name in names])
    return Parts(parts, classes, origins, by_name)


def require_one_word(words: Iterable[str], where: str) -> None:
    """Raise DataError if two words are used for one part, or if some of the data is of a part and some of none."""
    said: dict[str | None, str] = {}
    for word in words:
        other = said.setdefault(part_called(word), word)
        if part_called(word) and other.lower() != word.lower():
            raise DataError(f"{where} has {other!r} and {word!r}, which may be one part or two; call them alike")
    if None in said and len(said) > 1:
        word = next(word for part, word in said.items() if part)
        raise DataError(f"{where} has data of {word!r}, and data of which nothing says the part; name all or none")


def _main_part(found: Mapping[str, LabelledImages]) -> LabelledImages:
    return found.get("train") or found.get(WHOLE) or next(iter(found.values()))


def in_timms_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, as timm's readers sort folders: whatever their case, and 10 after 9."""
    return tuple(sorted(sorted(set(names)), key=_timms_key))


def in_order_of_texts(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, as classes were sorted before: upper case first, and numbers if there are no others."""
    names = sorted(set(names))
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else names)


def _timms_key(name: str) -> list[Any]:
    try:
        return natural_key(name)
    except ValueError:  # of a lone digit that is no decimal, such as a raised 2; timm cannot read these at all
        return [name.lower()]


def _require_told_apart(classes: Sequence[str], where: str) -> None:
    if len(classes) == 1:
        raise DataError(f"{where} has one class only, {classes[0]!r}; to tell classes apart takes at least two")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{where} has two classes of the name {twice[0]!r}; name them apart")
    seen: dict[str, str] = {}
    for name in classes:
        if (other := seen.setdefault(name.strip(), name)) != name:
            raise DataError(f"{where} has the classes {other!r} and {name!r}, which differ in blanks alone; rename one")


def _require_utf8(images: Sequence[Any], where: str) -> None:
    """A run writes the names down (split.csv), in UTF-8."""
    names = [str(image) for image in images if isinstance(image, Path)]
    if bad := [name for name in [*names, *([str(Path(names[0]).absolute())] if names else [])] if not _is_utf8(name)]:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"{where} has names that are not UTF-8: {bad[0].encode(errors='surrogateescape')!r}{more}; rename them, "
            "for example by convmv -f latin1 -t utf8"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _data_set_for(images: Sequence[Any], where: str) -> type[Images]:
    kinds = {is_volume(image) for image in images}
    if len(kinds) > 1:
        raise DataError(f"{where} holds images and volumes; keep them in folders of their own")
    return Volumes if kinds == {True} else Images
