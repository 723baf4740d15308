"""Opening data by its name, split into what is trained on and what is held out by one rule for all sources."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import IterableDataset, Subset

from zoo.data.images import DataError, Images
from zoo.data.sources import read_parts
from zoo.data.sources.parts import WHOLE, Parts


@dataclass(frozen=True)
class Data:
    """A data set, split."""

    train: Any
    val: Any
    """Evaluated after every epoch."""
    test: Any | None
    """Evaluated once, after training; None where `val` is the only held-out part."""
    classes: tuple[str, ...]
    """Name of each class index."""
    split: str
    """Where the held-out part that gives the result comes from, in words."""
    listing: tuple[tuple[str, str, str], ...] = ()
    """(path, label, split) of every image, where the split was made here."""
    skipped: tuple[str, ...] = ()
    """Images that could not be read and were left out."""


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How a validation part is made where the source has none, and what happens to images that cannot be read."""

    val_fraction: float = 0.2
    """Share of each class that goes into it."""
    seed: int = 0
    keep_test: bool = False
    """Make one although there is a test part, because the epoch to keep is chosen by the validation part."""
    skip_bad: bool = False
    """Leave images out that cannot be read."""
    num_classes: int = 0
    """For shards, which do not say it."""


def open_data(name: str, splitting: Splitting | None = None) -> Data:
    """Open the data called `name`, split. The split is the same for every training seed. Raises DataError."""
    splitting = splitting or Splitting()
    source = read_parts(name, splitting.num_classes)
    skipped: tuple[str, ...] = ()
    if splitting.skip_bad:
        source, skipped = _leave_out_unreadable(source)
    return replace(_hold_out(source, splitting), skipped=skipped)


def open_held_out(name: str, part: str = "") -> tuple[Any, tuple[str, ...], str]:
    """What to evaluate on, the class names, and where it comes from in words.

    This is the part asked for; without `part` it is test, else val, else what training by default holds out of a
    training part, else the whole. Raises DataError.
    """
    source = read_parts(name)
    if part and part not in source.parts:
        there = ", ".join(source.parts)
        raise DataError(f"data {name!r} has no part {part!r}; it has {there}")
    for wanted in (part,) if part else ("test", "val"):
        if wanted in source.parts:
            return source.parts[wanted], source.classes, source.origins.get(wanted, "all images")
    if name == "digits" or "train" in source.parts:
        data = _hold_out(source, Splitting())
        return data.val, data.classes, data.split
    return source.parts[WHOLE], source.classes, "all images"


def _hold_out(source: Parts, splitting: Splitting) -> Data:
    """Take the held-out parts that the source has; where there is none, split one off the training part."""
    parts, classes, origins = source.parts, source.classes, source.origins
    train = parts.get("train", parts.get(WHOLE))
    if train is None:
        raise DataError(f"there is no training part, only {', '.join(parts)}")
    val, test = parts.get("val"), parts.get("test")
    if val is None and test is not None and not splitting.keep_test:
        return Data(train, test, None, classes, origins["test"])
    if val is not None:
        return Data(train, val, test, classes, origins["test" if test is not None else "val"])
    rest, held_out = _split_each_class(train, classes, splitting)
    said = f"a stratified {len(held_out)} of {len(train)} images, the same for every training seed"
    listing = _list_files({"train": rest, "val": held_out, "test": test}, classes)
    return Data(rest, held_out, test, classes, origins["test"] if test is not None else said, listing)


def _split_each_class(data_set: Any, classes: tuple[str, ...], splitting: Splitting) -> tuple[Any, Any]:
    """What remains, and what is held out: the same share of each class, and at least one image of it."""
    from sklearn.model_selection import train_test_split  # takes a second

    if isinstance(data_set, IterableDataset):
        raise DataError("a stream without a validation split cannot be split; give one that has it")
    labels = _labels(data_set)
    counts = Counter(labels)
    if few := [classes[label] for label, count in counts.items() if count < 2]:
        raise DataError(f"one image is too few to split for {', '.join(few)}; add images or a val/ folder")
    wanted = max(round(splitting.val_fraction * len(labels)), len(counts))
    rest, held_out = train_test_split(
        range(len(labels)), test_size=wanted, stratify=labels, random_state=splitting.seed
    )
    return _take(data_set, sorted(rest)), _take(data_set, sorted(held_out))


def _labels(data_set: Any) -> list[int]:
    """Class indices, without reading an image."""
    if isinstance(data_set, Images):
        return data_set.labels
    reader = getattr(data_set, "reader", None)  # timm's; torchvision's data sets have targets
    return [int(label) for label in (reader.iter_targets() if reader else data_set.targets)]


def _take(data_set: Any, indices: list[int]) -> Any:
    return data_set.take(indices) if isinstance(data_set, Images) else Subset(data_set, indices)


def _list_files(parts: Mapping[str, Any], classes: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """(path, label, split) of the images that are files, or rows of one; pixels in memory have no path."""
    return tuple(
        (str(image.absolute() if isinstance(image, Path) else image), classes[label], part)
        for part, images in parts.items()
        if isinstance(images, Images)
        for image, label in zip(images.images, images.labels, strict=True)
        if not isinstance(image, Image.Image | np.ndarray)
    )


def _leave_out_unreadable(source: Parts) -> tuple[Parts, tuple[str, ...]]:
    """The source without images that cannot be read, and their names. Reads every image once."""
    parts, skipped = dict(source.parts), []
    for part, images in source.parts.items():
        if not isinstance(images, Images):
            continue
        fine = _readable(images)
        skipped += [str(image) for image, good in zip(images.images, fine, strict=True) if not good]
        parts[part] = images.take([k for k, good in enumerate(fine) if good])
        if lost := sorted(source.classes[k] for k in set(images.labels) - set(parts[part].labels)):
            raise DataError(f"no image of {', '.join(lost)} can be read in {part}; repair them or take the class out")
    return replace(source, parts=parts), tuple(skipped)


def _readable(images: Images) -> list[bool]:
    """Whether each of them can be read."""

    def can_be_read(image: Any) -> bool:
        try:
            images.read(image)
        except DataError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        return list(pool.map(can_be_read, images.images))
