"""`hfds/...`, `hfids/...`, `wds/...`, `torch/...`: data sets that timm's readers read."""

from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from zoo.data.images import DataError
from zoo.data.rows import Rows
from zoo.data.sources.columns import split_columns
from zoo.data.sources.parts import Parts
from zoo.data.streams import Stream

READERS = ("hfds", "hfids", "wds", "torch")
PACKAGES = {"hfds": "datasets", "hfids": "datasets"}
"""What to install for a reader, where it is not the module that Python misses."""
HELD_OUT = (("validation", "val"), ("val", "val"), ("test", "test"))
"""Splits to look for, and the part that each is."""
HELD_OUT_OF_TORCHVISION = (("validation", "test"),)
"""timm calls torchvision's test part `validation`."""


class SplitMissing(DataError):
    """The data set lacks this split, or is not there at all: the readers do not tell these apart."""


def read_by_timm(name: str, num_classes: int = 0) -> Parts:
    """The training part and the first held-out part that is there, of `READER/NAME@FOLDER#LABEL`.

    `num_classes` is for shards, which do not say their classes. Raises DataError.
    """
    reader, _, _ = name.partition("/")
    data_set, options = _timm_arguments(name)
    train = _open_split(name, data_set, options, "train")
    parts, origins = {"train": train}, {"train": f"train of {data_set}"}
    for split, part in HELD_OUT_OF_TORCHVISION if reader == "torch" else HELD_OUT:
        try:
            parts[part] = _open_split(name, data_set, options, split)
        except SplitMissing:
            continue
        origins[part] = f"{split} of {data_set}"
        break
    classes = tuple(getattr(getattr(train, "reader", train), "class_to_idx", None) or map(str, range(num_classes)))
    if not classes:
        raise DataError(f"{name} does not say its classes; set num_classes in the recipe")
    return Parts({part: _as_ours(kept, origins[part], len(classes)) for part, kept in parts.items()}, classes, origins)


def _as_ours(kept: Any, name: str, classes: int) -> Stream | Rows:
    return (Stream if isinstance(kept, IterableDataset) else Rows)(kept, name, classes)


def _timm_arguments(name: str) -> tuple[str, dict[str, Any]]:
    """What timm calls the data set, and its options: the folder behind @, and the columns behind #."""
    reader, _, rest = name.partition("/")
    place, _, columns = rest.partition("#")
    data_set, _, folder = place.partition("@")
    options: dict[str, Any] = {"root": folder or None}
    if keys := split_columns(columns):
        options |= {"target_key": keys[-1], "input_key": keys[0] if len(keys) == 2 else None}
    if reader == "wds":
        options["root"], data_set = place, ""
        if not Path(place).is_dir():
            raise DataError(f"there is no folder {place} of shards, which {name} names")
    if reader == "torch" and not folder:
        raise DataError(f"{name} takes the folder that holds it: {name}@FOLDER")
    return f"{reader}/{data_set}", options


def _open_split(name: str, data_set: str, options: dict[str, Any], split: str) -> Any:
    """Raises DataError, of the kind SplitMissing where another split may be there."""
    from timm.data import create_dataset

    reader, _, _ = name.partition("/")
    try:
        # Without a mode images come as they are in the file, for us to read (zoo/data/pixels.py).
        return create_dataset(data_set, split=split, is_training=split == "train", input_img_mode="", **options)
    except ImportError as error:
        package = PACKAGES.get(reader, error.name)
        raise DataError(f"{name} takes the package {package}: pip install {package}") from None
    except (AssertionError, KeyError) as error:
        raise DataError(f"cannot open {name}: {error}") from None
    except (ValueError, RuntimeError, OSError) as error:
        raise SplitMissing(f"cannot open {name}: {error}") from None
