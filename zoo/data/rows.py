"""Rows of a data set that timm or torchvision keeps: `hfds/...` and `torch/...`."""

from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from zoo.data.images import DataError, Encoded, read_image


class Rows(Dataset[tuple[Any, int]]):
    """(Image, class index) by row; images are read as all are here, which neither timm nor torchvision does."""

    def __init__(self, kept: Any, name: str, classes: int) -> None:
        self.kept, self.name, self.classes = kept, name, classes
        self.reader = getattr(kept, "reader", None)  # timm's; torchvision's data sets have none
        if hasattr(kept, "loader"):  # of torchvision's folders
            kept.loader = _read_path

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        if self.reader is None:
            image, label = self.kept[row]
            return read_image(image), self._known(label, row)
        file, label = self.reader[row]
        with file:
            content = file.read()
        return read_image(Encoded(content, f"of row {row} of {self.name}")), self._known(label, row)

    @cached_property
    def labels(self) -> list[int]:
        """Class index of each row, without reading an image. Raises DataError for one that is none."""
        found = self.kept.targets if self.reader is None else self.reader.iter_targets()
        return [self._known(label, row) for row, label in enumerate(map(_plain, found))]

    def _known(self, label: Any, row: int) -> int:
        if isinstance(label, int) and 0 <= label < self.classes:
            return label
        raise DataError(
            f"row {row} of {self.name} has the label {label!r}, which is none of its {self.classes} classes; mend it "
            "or take it out"
        )


def _plain(label: Any) -> Any:
    """A number of NumPy or torch as Python's."""
    return label.item() if hasattr(label, "item") else label


def _read_path(path: str) -> Any:
    return read_image(Path(path))
