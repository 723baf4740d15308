"""CSV files of measurements, the conditions as a comment in the first line, then a row a run; and tables on a page."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.files import write_whole


def write_rows(path: Path, conditions: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the file whole; all rows have the columns of the first."""

    def write(beside: Path) -> None:
        with beside.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {conditions}\n")
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def read_rows(path: Path) -> tuple[str, list[dict[str, str]]]:
    """The conditions and the rows."""
    conditions, *lines = path.read_text(encoding="utf-8").splitlines()
    return conditions.removeprefix("# "), list(csv.DictReader(lines))


def require_like(path: Path, conditions: str) -> None:
    """Call it before a row is measured that joins those of the file: its first line speaks for all of them."""
    if path.exists() and (before := read_rows(path)[0]) != conditions:
        raise SystemExit(
            f"{path} was measured under other conditions, and a row of now would stand among them as theirs.\n"
            f"  there: {before}\n  now:   {conditions}\nMove the file away to measure all of it anew."
        )


def as_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])
