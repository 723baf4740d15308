"""`scans.npz`: volumes and labels as arrays of NumPy in one file."""

from pathlib import Path

from zoo.data.images import DataError
from zoo.data.sources.labels import class_of
from zoo.data.sources.parts import PART_CHOICES, WHOLE, Parts, labelled, part_called, require_one_word
from zoo.data.volumes import read_npz


def read_arrays(path: Path) -> Parts:
    """The parts that the names of the arrays say, such as `train_images`, `X_test`. Raises DataError."""
    arrays, classes = read_npz(path)
    found, origins = {}, {}
    for name, (volumes, labels) in arrays.items():
        part = part_called(name) if name else WHOLE
        if part is None:
            raise DataError(f"{path} has arrays of an unknown part {name!r}; choices are {PART_CHOICES}")
        where = f"{path}, {name} labels" if name else f"{path}, labels"
        found[part] = volumes, [class_of(label, f"{where}, row {row}", classes) for row, label in enumerate(labels)]
        if name:
            origins[part] = f"{name} arrays of the file"
    require_one_word(arrays, str(path))
    return labelled(found, origins, str(path), classes)
