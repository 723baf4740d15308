"""The tables that these jobs leave: rows kept as they are measured, then a CSV with a head that says how, and a print.

A job that was interrupted finds its rows again in the file of its ledger and measures those that are missing.
"""

import csv
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch

from zoo.files import write_whole
from zoo.hardware import hardware

RESULTS = Path(__file__).with_name("results")
UNFINISHED = 75
"""Exit code of a job that has more to do; the same as that of an interrupted `zoo train`."""


def machine(device: torch.device) -> dict[str, str]:
    """What the figures of this call depend on."""
    return {
        "hardware": hardware(device),
        "driver": _driver() if device.type == "cuda" else "-",
        "cores": str(os.cpu_count()),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def command_line(arguments: Sequence[str] | None) -> str:
    """The command of this call."""
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", f"scripts/gpu/{Path(sys.argv[0] or '-').name}", *given])


class Ledger:
    """Rows that have been measured, by a key, and the machines and commands that measured them: one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"calls": [], "rows": {}}
        self.calls: list[dict[str, str]] = kept["calls"]
        self.rows: dict[str, dict[str, Any]] = kept["rows"]

    def call(self, facts: Mapping[str, str]) -> None:
        """Note what measures from here on; only calls that go on to measure are noted."""
        if dict(facts) not in self.calls:
            self.calls.append(dict(facts))

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a row."""
        self.rows[key] = dict(row)
        self.save()

    def save(self) -> None:
        """Write the file anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"calls": self.calls, "rows": self.rows}, indent=1)
        write_whole(self.path, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def head(self) -> list[str]:
        """Lines for the head of the table, one a call."""
        return [", ".join(f"{key} {value}" for key, value in call.items()) for call in self.calls]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], head: Iterable[str]) -> None:
    """Write a CSV whose comment lines say what was measured and how."""

    def write(beside: Path) -> None:
        with beside.open("w", newline="", encoding="utf-8") as file:
            file.writelines(f"# {line}\n" for line in head)
            writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows({name: _short(row.get(name, "")) for name in columns} for row in rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the rows, aligned."""
    cells = [list(columns), *([_short(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_short, value))
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
