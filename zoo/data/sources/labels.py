"""What a label of a table, a parquet file or an array says: the name of a class, or nothing that could be one."""

import re
from collections.abc import Sequence
from typing import Any

from zoo.data.images import DataError

BELOW_ZERO = re.compile(r"-\d+(\.0+)?")
"""A text that is a number below zero."""


def class_of(label: Any, where: str, names: Sequence[str] = ()) -> str:
    """The class that a label names; with `names` a number is the place of one there.

    Raises DataError that begins with `where`, file and row, for what is missing, out of range, or could be read in two
    ways: -1 is a class to some and no label to others.
    """
    label = label.item() if hasattr(label, "item") else label  # a number of NumPy
    if label is None or label != label or (isinstance(label, str) and label.strip().lower() in ("", "nan")):
        raise DataError(f"{where}: the label is missing, it is {label!r}; give one or take it out")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, str | int):
        raise DataError(f"{where}: the label {label!r} is no class; the name or the number of one is wanted")
    if names and isinstance(label, int):
        if not 0 <= label < len(names):
            raise DataError(f"{where}: the label {label} is none of the {len(names)} classes, 0 to {len(names) - 1}")
        return names[label]
    if BELOW_ZERO.fullmatch(name := str(label).strip()):
        raise DataError(
            f"{where}: the label {name} is a class, or says that there is none; number classes from 0 or name them, "
            "and take out what has no label"
        )
    return str(label)
