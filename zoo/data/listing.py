"""split.csv: which images a run trained on, and which it held out.

    path,label,split,bytes

A row an image, in the order in which the run has them; `split` is train, val, test or skipped, and `bytes` the size of
the file, which runs made before did not write. The table names a data set by itself (zoo/data/sources/table.py), and
zoo/data/found_again.py finds its images in data that may have changed.
"""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.images import DataError, Images

SKIPPED = "skipped"
"""The `split` of an image that could not be read and was left out."""
PIECE = 1000
"""Files whose sizes one thread asks for at a time."""


class Listed(NamedTuple):
    """A row of split.csv."""

    path: str
    """Absolute."""
    label: str
    """Name of the class; empty for an image that was left out."""
    split: str
    bytes: int | None = None


def list_images(parts: Mapping[str, Any], classes: Sequence[str], skipped: Sequence[str] = ()) -> tuple[Listed, ...]:
    """Every image of these parts, and those left out, with their sizes; none if they are no files of their own."""
    if not are_files(parts):
        return ()
    rows = [*list_places(parts, classes), *(Listed(str(Path(name).absolute()), "", SKIPPED) for name in skipped)]
    sizes = sizes_of([row.path for row in rows])
    return tuple(row._replace(bytes=size) for row, size in zip(rows, sizes, strict=True))


def list_places(parts: Mapping[str, Images], classes: Sequence[str]) -> list[Listed]:
    """The same without sizes, which asks the disk nothing."""
    return [
        Listed(str(image.absolute()), classes[label], name)
        for name, part in parts.items()
        for image, label in zip(part.images, part.labels, strict=True)
    ]


def are_files(parts: Mapping[str, Any]) -> bool:
    """Whether each image or volume is a file, or a folder of frames, of its own."""
    return all(isinstance(part, Images) and all(isinstance(at, Path) for at in part.images) for part in parts.values())


def write_listing(path: Path, rows: Iterable[Listed]) -> None:
    """Write split.csv. Texts are quoted, as the name of a file may hold whatever a line of a table cannot."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(Listed._fields)
        writer.writerows(rows)


def read_listing(path: Path) -> tuple[Listed, ...]:
    """The rows of split.csv. Raises DataError if they are not what a run writes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(
                Listed(row["path"], row["label"], row["split"], int(row["bytes"]) if row.get("bytes") else None)
                for row in csv.DictReader(file, strict=True)
            )
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is not what a run writes ({error!r}); put it back as it was") from None


def sizes_of(paths: Sequence[str]) -> list[int | None]:
    """Bytes of each file, or of all frames of a folder; None for one that is not there."""
    pieces = [paths[first : first + PIECE] for first in range(0, len(paths), PIECE)]
    with ThreadPoolExecutor() as pool:  # a disk at the other end of a network answers many questions at once
        return [size for sizes in pool.map(lambda piece: [_size(path) for path in piece], pieces) for size in sizes]


def _size(path: str) -> int | None:
    try:
        if os.path.isdir(path):
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return os.stat(path).st_size
    except OSError:
        return None
