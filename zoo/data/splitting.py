"""Opening data by its name, split into what is trained on and what is held out by one rule for all sources."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils.data import ConcatDataset, IterableDataset, Subset

from zoo.data.found_again import split_here
from zoo.data.images import DataError, Images
from zoo.data.listing import Listed, list_images
from zoo.data.record import Record, digest_of
from zoo.data.sources import read_parts
from zoo.data.sources.parts import WHOLE, Parts, in_order_of_texts

ALL = "all"
"""What may be asked for in place of a part: every image there is."""


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
    parts: Mapping[str, Any] = field(default_factory=dict)
    """The same by the names that split.csv has for them: train, and val or test or both."""
    skipped: tuple[str, ...] = ()
    """Images that could not be read and were left out."""
    digest: str = ""
    """Of its labels and names (zoo/data/record.py)."""

    @property
    def listing(self) -> tuple[Listed, ...]:
        """The rows of split.csv: every image, if the images are files. Asks for the size of each."""
        return list_images(self.parts, self.classes, self.skipped)


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


def open_data(name: str, splitting: Splitting | None = None, before: Record | None = None) -> Data:
    """Open the data called `name`, split. The split is the same for every training seed. Raises DataError.

    `before` is what a run that goes on knows of it: its split is taken, and data that has changed is refused.
    """
    splitting, before = splitting or Splitting(), before or Record()
    source = read_parts(name, splitting.num_classes)
    digest, listed = digest_of(source), before.lists(source)
    source, skipped = before.restore(source, name)
    if splitting.skip_bad and not listed:
        source, more = leave_out_unreadable(source)
        skipped += more
    return replace(_as_data(split_parts(source, splitting)), skipped=skipped, digest=digest)


def open_held_out(name: str, part: str = "") -> tuple[Any, tuple[str, ...], str]:
    """What to evaluate on, the class names, and where it comes from in words.

    This is the part asked for, or `all` of them; without `part` it is test, else val, else what training by default
    holds out of a training part, else the whole. Raises DataError.
    """
    return held_out_of(read_parts(name), name, part)


def held_out_of(source: Parts, name: str, part: str = "") -> tuple[Any, tuple[str, ...], str]:
    """The same of data that is open already."""
    if not part and (name == "digits" or list(source.parts) == ["train"]):
        source = split_parts(source, Splitting())
    return take_part(source, name, part or next((each for each in ("test", "val") if each in source.parts), ALL))


def take_part(source: Parts, name: str, part: str) -> tuple[Any, tuple[str, ...], str]:
    """A part of the data called `name`, or `all` of them; the class names; and where it comes from in words.

    Raises DataError if there is no such part, or if the parts are streams, which cannot be joined.
    """
    if part == ALL:
        return _join(list(source.parts.values()), name), source.classes, "all images"
    if part not in source.parts:
        there = ", ".join(source.parts)
        raise DataError(f"data {name!r} has no part {part!r}; it has {there}, and {ALL} takes every image")
    return source.parts[part], source.classes, source.origins.get(part, "all images")


def _join(parts: list[Any], name: str) -> Any:
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, IterableDataset) for part in parts):
        raise DataError(f"the parts of {name} are streams, which cannot be measured as one; name one by --part")
    if not all(isinstance(part, Images) for part in parts):
        return ConcatDataset(parts)
    return type(parts[0])([at for part in parts for at in part.images], [at for part in parts for at in part.labels])


def split_parts(source: Parts, splitting: Splitting) -> Parts:
    """The parts with something held out: the source's own, or else a part `val` split off the training part."""
    parts, origins = source.parts, source.origins
    train = parts.get("train", parts.get(WHOLE))
    if train is None:
        raise DataError(f"there is no training part, only {', '.join(parts)}")
    if "val" in parts or ("test" in parts and not splitting.keep_test):
        return source
    rest, held_out = _split_each_class(train, source, splitting)
    others = {name: part for name, part in parts.items() if name not in ("train", WHOLE)}
    said = split_here(len(held_out), len(train))
    return replace(source, parts={"train": rest, "val": held_out, **others}, origins={**origins, "val": said})


def _as_data(source: Parts) -> Data:
    """The result comes from test if there is one, and without a part val this is evaluated after every epoch too."""
    parts = source.parts
    val, test = parts.get("val"), parts.get("test")
    said = source.origins["val" if test is None else "test"]
    if val is None:
        val, test = test, None
    return Data(parts["train"], val, test, source.classes, said, parts)


def _split_each_class(data_set: Any, source: Parts, splitting: Splitting) -> tuple[Any, Any]:
    """What remains, and what is held out: the same share of each class, and at least one image of it."""
    from sklearn.model_selection import train_test_split  # takes a second

    if isinstance(data_set, IterableDataset):
        raise DataError("a stream without a validation split cannot be split; give one that has it")
    labels, classes = labels_of(data_set), source.classes
    counts = Counter(labels)
    if few := [classes[label] for label, count in counts.items() if count < 2]:
        raise DataError(f"one image is too few to split for {', '.join(few)}; add images or a val/ folder")
    wanted = max(round(splitting.val_fraction * len(labels)), len(counts))
    # The draws go through the classes in order. Sorted as they once were, a split made then is made again.
    place = {name: k for k, name in enumerate(in_order_of_texts(classes) if source.by_name else classes)}
    rest, held_out = train_test_split(
        range(len(labels)),
        test_size=wanted,
        stratify=[place[classes[label]] for label in labels],
        random_state=splitting.seed,
    )
    # Whole images go to the classes that miss the largest part of one; a small class may be left without any.
    seen = {labels[k] for k in held_out}
    first = {labels[k]: k for k in reversed(rest) if labels[k] not in seen}
    rest, held_out = [k for k in rest if first.get(labels[k]) != k], [*held_out, *first.values()]
    return _take(data_set, sorted(rest)), _take(data_set, sorted(held_out))


def labels_of(data_set: Any) -> list[int]:
    """Class index of each image of a data set that is no stream, without reading an image."""
    if isinstance(data_set, Subset):
        labels = labels_of(data_set.dataset)
        return [labels[k] for k in data_set.indices]
    return data_set.labels


def _take(data_set: Any, indices: list[int]) -> Any:
    return data_set.take(indices) if isinstance(data_set, Images) else Subset(data_set, indices)


def leave_out_unreadable(source: Parts) -> tuple[Parts, tuple[str, ...]]:
    """The source without images that cannot be read, and their names. Reads every image once, but those of streams."""
    parts, skipped = dict(source.parts), []
    for part, images in source.parts.items():
        if isinstance(images, IterableDataset):
            continue
        fine = _readable(images)
        skipped += [_name_of(images, k) for k, good in enumerate(fine) if not good]
        parts[part] = _take(images, [k for k, good in enumerate(fine) if good])
        if lost := sorted(source.classes[k] for k in set(labels_of(images)) - set(labels_of(parts[part]))):
            raise DataError(f"no image of {', '.join(lost)} can be read in {part}; repair them or take the class out")
    return replace(source, parts=parts), tuple(skipped)


def _name_of(data_set: Any, index: int) -> str:
    return str(data_set.images[index]) if isinstance(data_set, Images) else f"row {index} of {data_set.name}"


def _readable(data_set: Any) -> list[bool]:
    """Whether each of them can be read."""

    def can_be_read(index: int) -> bool:
        try:
            data_set[index]
        except DataError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        return list(pool.map(can_be_read, range(len(data_set))))
