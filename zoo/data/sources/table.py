"""`photos.csv`: a table of paths and labels, with or without a column that says the part."""

import csv
import io
from pathlib import Path

from zoo.data.images import DataError
from zoo.data.listing import SKIPPED
from zoo.data.sources.columns import find_columns
from zoo.data.sources.labels import class_of
from zoo.data.sources.parts import PART_CHOICES, WHOLE, Parts, labelled, part_called, require_one_word

SPLIT_COLUMNS = ("split", "part", "set", "subset")


def read_table(path: Path, columns: str) -> Parts:
    """The images that a CSV file names, by paths that start in its own folder. Raises DataError."""
    head, rows = _read_rows(path)
    image, label = find_columns(head, columns, path)
    split = _split_column(head, path)

    found: dict[str, tuple[list[Path], list[str]]] = {}
    origins: dict[str, str] = {}
    for number, row in rows:
        said = row[split] if split else None
        if said == SKIPPED:
            continue
        where = f"{path}, line {number}"
        if None in row:
            raise DataError(f"{where} has more cells than the first line names; put what holds a comma into quotes")
        if not row[image] or not row[label]:
            raise DataError(f"{where}: a path and a label are wanted, not {row[image]!r}, {row[label]!r}")
        part = part_called(said or "") if split else WHOLE
        if part is None:
            raise DataError(f"{where}: unknown split {said!r}; choices are {PART_CHOICES}")
        files, names = found.setdefault(part, ([], []))
        files.append(path.parent / row[image])
        names.append(class_of(row[label], where))
        if said:
            origins[part] = f"split {said!r} of the table"
    if split:
        require_one_word(dict.fromkeys(row[split] for _, row in rows if row[split] != SKIPPED), str(path))
    _require_files([file for files, _ in found.values() for file in files], path)
    return labelled(found, origins, str(path))


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns, and rows by column with the lines on which they end. There is one at least.

    Commas, semicolons or tabs stand between cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no CSV file in UTF-8; a table of paths and labels is wanted") from None
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    rows = [(reader.line_num, row) for row in reader]
    if not rows:
        raise DataError(f"{path} has no rows; its first line names the columns, such as path,label")
    return list(reader.fieldnames or ()), rows


def _split_column(head: list[str], path: Path) -> str | None:
    found = [name for name in head if name.lower() in SPLIT_COLUMNS]
    if len(found) > 1:
        raise DataError(f"{path} has the columns {' and '.join(found)}, each of which may say the part; drop one")
    return found[0] if found else None


def _require_files(files: list[Path], path: Path) -> None:
    if missing := [file for file in files if not file.exists()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{path} names {missing[0]}{more}, which {'are' if more else 'is'} not there")
