"""The table of a study whose runs several processes make: each leaves a row beside its run, and all go into the file.

`order` says what a row is about besides its seed: columns, and the values of each in the order of the table.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from measured import read_rows, write_rows

from zoo.files import write_whole

Order = Mapping[str, Sequence[str]]
THREADS = ", one CPU thread"


def key(row: Mapping[str, object], order: Order) -> tuple[str, ...]:
    """What a row is about."""
    return tuple(str(row[column]) for column in (*order, "seed"))


def collect(table: Path, runs: Path, order: Order) -> list[Mapping[str, object]]:
    """The rows of the file and of finished runs, sorted."""
    rows: dict[tuple[str, ...], Mapping[str, object]] = {}
    for row in read_rows(table)[1] if table.exists() else ():
        rows[key(row, order)] = row
    for file in runs.glob("*.json"):
        row = json.loads(file.read_text(encoding="utf-8"))
        rows.setdefault(key(row, order), row)

    def place(row: Mapping[str, object]) -> list[int]:
        return [*(values.index(str(row[column])) for column, values in order.items()), int(str(row["seed"]))]

    return sorted(rows.values(), key=place)


def is_there(about: Mapping[str, object], table: Path, runs: Path, order: Order) -> bool:
    """Whether the row about this is in the file or beside a finished run."""
    return key(about, order) in (key(row, order) for row in collect(table, runs, order))


def add(table: Path, runs: Path, order: Order, name: str, row: Mapping[str, object]) -> None:
    """Keep the row of the run `name`, and write the file anew."""
    write_whole(runs / f"{name}.json", lambda beside: beside.write_text(json.dumps(row), encoding="utf-8"))
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    before = read_rows(table)[0].removesuffix(THREADS) if table.exists() else versions
    conditions = before if versions in before.split(" and ") else f"{before} and {versions}"
    write_rows(table, conditions + THREADS, collect(table, runs, order))
    print(*row.values(), flush=True)
