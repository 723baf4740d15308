"""The parts of a data set named by one string. A file here reads one kind of source."""

from pathlib import Path

from zoo.data.images import DataError
from zoo.data.sources.arrays import read_arrays
from zoo.data.sources.digits import read_digits
from zoo.data.sources.folders import folders_of_images, read_clips, read_folder
from zoo.data.sources.parquet import read_parquet
from zoo.data.sources.parts import Parts
from zoo.data.sources.planted import read_planted
from zoo.data.sources.readers import READERS, read_by_timm
from zoo.data.sources.table import read_table

DRAWN = {"digits": read_digits, "planted": read_planted}
"""Data that need no file, by their names."""


def read_parts(name: str, num_classes: int = 0) -> Parts:
    """The parts of the data called `name` (zoo/data/__init__.py says how), as its source has them.

    `num_classes` is for shards, which do not say it. Raises DataError.
    """
    first, slash, rest = name.partition("/")
    if name in DRAWN:
        return DRAWN[name]()
    if slash and first in READERS and rest.strip("/"):
        return read_by_timm(name, num_classes)
    if slash and first == "frames" and rest and Path(rest).is_dir():
        return read_clips(Path(rest))
    place, _, columns = (name, "", "") if Path(name).exists() else name.partition("#")
    path = Path(place)
    if columns and (path.is_dir() or path.suffix.lower() == ".npz") and not _is_parquet(path):
        raise DataError(f"{name} names columns, and {path} has none: #{columns} is for tables and parquet files")
    if path.is_file():
        return read_arrays(path) if path.suffix.lower() == ".npz" else read_table(path, columns)
    if path.is_dir() and place:
        return _read_folder_or_parquet(path, columns)
    raise DataError(
        f"there is no data {name!r}; give digits, planted, a folder of class folders or of parquet files, a CSV file, "
        "a file of volumes (.npz), frames/FOLDER, hfds/ORG/NAME, hfids/ORG/NAME, wds/FOLDER or torch/NAME@FOLDER"
    )


def _is_parquet(path: Path) -> bool:
    return path.is_dir() and any(path.rglob("*.parquet"))


def _read_folder_or_parquet(path: Path, columns: str) -> Parts:
    if not _is_parquet(path):
        return read_folder(path)
    if len(classes := folders_of_images(path, 2)) > 1:
        raise DataError(
            f"{path} holds parquet files, and images in {' and '.join(f'{name}/' for name in classes)}: either may be "
            "the data; move the other elsewhere"
        )
    return read_parquet(path, columns)
