"""Which columns of a table hold the image and the label."""

from collections.abc import Sequence
from pathlib import Path

from zoo.data.images import DataError

IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label")
"""Usual names, in any case; the first that is there is taken."""


def split_columns(columns: str) -> list[str]:
    """The names in the `LABEL` or `IMAGE,LABEL` behind a data set's name."""
    return [name.strip() for name in columns.split(",") if name.strip()]


def find_columns(there: Sequence[str], columns: str, where: Path) -> tuple[str, str]:
    """The image's and the label's column: those named in `columns`, or those with usual names. Raises DataError."""
    given = split_columns(columns)
    image, label = (None, *given) if len(given) == 1 else (given or (None, None))[:2]
    lower = {name.lower(): name for name in there if name}
    image = image or next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
    label = label or next((lower[name] for name in LABEL_COLUMNS if name in lower), None)
    if image is None or label is None or image not in there or label not in there:
        raise DataError(
            f"{where} has the columns {', '.join(there)}; say which hold the image and the label by #IMAGE,LABEL "
            "behind the name"
        )
    return image, label
