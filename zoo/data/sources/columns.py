"""Which columns of a table hold the image and the label."""

from collections.abc import Sequence
from pathlib import Path

from zoo.data.images import DataError

IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label")
"""Usual names, in any case."""


def split_columns(columns: str) -> list[str]:
    """The names in the `LABEL` or `IMAGE,LABEL` behind a data set's name."""
    return [name.strip() for name in columns.split(",") if name.strip()]


def find_columns(
    there: Sequence[str], columns: str, where: Path, with_images: Sequence[str] | None = None
) -> tuple[str, str]:
    """The image's and the label's column: those named in `columns`, or those with usual names.

    `with_images` are the columns that can hold images, where their types tell. Raises DataError, also where there is
    more than one such column.
    """
    given = split_columns(columns)
    image, label = (None, *given) if len(given) == 1 else (given or (None, None))[:2]
    image = image or _usual(IMAGE_COLUMNS, with_images or there, "image", where)
    label = label or _usual(LABEL_COLUMNS, there, "label", where)
    if image is None or label is None or image not in there or label not in there:
        raise DataError(
            f"{where} has the columns {', '.join(there)}; say which hold the image and the label by #IMAGE,LABEL "
            "behind the name"
        )
    if twice := [name for name in (image, label) if list(there).count(name) > 1]:
        raise DataError(f"{where} has two columns {twice[0]!r}, which may say different things; rename or drop one")
    return image, label


def _usual(names: Sequence[str], there: Sequence[str], what: str, where: Path) -> str | None:
    found = list(dict.fromkeys(name for name in there if name and name.lower() in names))
    if len(found) > 1:
        raise DataError(
            f"{where} has the columns {' and '.join(found)}, each of which may hold the {what}; say which by "
            f"#{'LABEL' if what == 'label' else 'IMAGE,LABEL'} behind the name"
        )
    return found[0] if found else None
