"""`photos.csv`: a table of paths and labels, with or without a column that says the part."""

import csv
import io
from pathlib import Path

from zoo.data.images import DataError
from zoo.data.listing import SKIPPED
from zoo.data.sources.columns import find_columns
from zoo.data.sources.parts import PART_CHOICES, WHOLE, Parts, labelled, part_called

SPLIT_COLUMNS = ("split", "part", "set", "subset")


def read_table(path: Path, columns: str) -> Parts:
    """The images that a CSV file names, by paths that start in its own folder. Raises DataError."""
    rows = _read_rows(path)
    image, label = find_columns(list(rows[0]), columns, path)
    split = next((name for name in rows[0] if name and name.lower() in SPLIT_COLUMNS), None)

    found: dict[str, tuple[list[Path], list[str]]] = {}
    origins: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        said = row[split] if split else None
        if said == SKIPPED:
            continue
        if not row[image] or not row[label]:
            raise DataError(f"{path}, line {number}: a path and a label are wanted, not {row[image]!r}, {row[label]!r}")
        part = part_called(said or "") if split else WHOLE
        if part is None:
            raise DataError(f"{path}, line {number}: unknown split {said!r}; choices are {PART_CHOICES}")
        files, names = found.setdefault(part, ([], []))
        files.append(path.parent / row[image])
        names.append(row[label])
        if said:
            origins[part] = f"split {said!r} of the table"
    _require_files([file for files, _ in found.values() for file in files], path)
    return labelled(found, origins, str(path))


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Rows by column; commas, semicolons or tabs stand between them. There is one at least."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no CSV file in UTF-8; a table of paths and labels is wanted") from None
    head = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count)))
    if not rows:
        raise DataError(f"{path} has no rows; its first line names the columns, such as path,label")
    return rows


def _require_files(files: list[Path], path: Path) -> None:
    if missing := [file for file in files if not file.exists()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{path} names {missing[0]}{more}, which {'are' if more else 'is'} not there")
