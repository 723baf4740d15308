"""What was measured: as a text, as a CSV file that grows, as a bar chart."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from zoo.bench.bench import Row
from zoo.bench.contestants import BenchError
from zoo.files import write_whole

COLUMNS = [field.name for field in fields(Row)]
CHARTS = (".png", ".svg", ".pdf")
COLOURS = {"eager": "#0072b2", "compiled": "#e69f00", "fused": "#009e73"}


def text(rows: Sequence[Row]) -> str:
    """A table for a terminal, the conditions above it."""
    first = rows[0]
    head = (
        f"{first.model}, {first.mode}, {first.dtype}, batch {first.batch} of {first.size}, {first.layout}, "
        f"{first.threads} thread{'s' * (first.threads > 1)}, {first.rounds} rounds\n{first.hardware}; {first.software}"
    )
    cells = [("network", "form", "ms", "img/s", "time [quartiles]", "peak MiB")]
    for row in rows:
        times = f"{row.ratio:.2f} [{row.ratio_q1:.2f}, {row.ratio_q3:.2f}]"
        cells.append((row.network, row.form, f"{row.ms:.1f}", f"{row.img_per_s:.1f}", times, f"{row.peak_mib:.0f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join([head, "", *lines])


def require_writable(path: Path, kinds: Sequence[str] = ()) -> None:
    """Raise BenchError where a file cannot be written, or appended to, which is better known before measuring."""
    if path.is_dir() or not path.parent.is_dir():
        raise BenchError(f"cannot write {path}: {'it is a folder' if path.is_dir() else f'there is no {path.parent}'}")
    if kinds and path.suffix not in kinds:
        raise BenchError(f"a chart is written as {', '.join(kinds)}, not {path.name!r}")
    if (
        not kinds
        and path.exists()
        and path.read_bytes().partition(b"\n")[0].decode(errors="replace") != ",".join(COLUMNS)
    ):
        raise BenchError(f"{path} has other columns than {','.join(COLUMNS[:4])} ...; give another file")


def append(path: Path, rows: Sequence[Row]) -> None:
    """Append rows to a CSV file, in place of those that were measured under the same conditions. Raises BenchError."""
    require_writable(path)
    there = read(path) if path.exists() else []
    new = {_conditions(asdict(row)) for row in rows}
    kept = [row for row in there if _conditions(row) not in new]

    def write(beside: Path) -> None:
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *(asdict(row) for row in rows)])

    write_whole(path, write)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of such a file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _conditions(row: Mapping[str, object]) -> tuple[str, ...]:
    names = ("model", "network", "form", "beside", "mode", "dtype", "batch", "size", "layout", "threads", "hardware")
    return tuple(str(row[name]) for name in names)


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Bars of the time beside the first network of each table, with the quartiles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(rows))
    ratios = [row.ratio for row in rows]
    around = [[r.ratio - r.ratio_q1 for r in rows], [r.ratio_q3 - r.ratio for r in rows]]
    bars = axes.barh(
        places, ratios, xerr=around, color=[COLOURS[row.form] for row in rows], ecolor="#444444", capsize=2
    )
    axes.bar_label(bars, [f"{row.img_per_s:.0f} img/s" for row in rows], padding=6, fontsize=8)
    names = [f"{row.network}{'' if row.form == 'eager' else f', {row.form}'}" for row in rows]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(row.ratio_q3 for row in rows))
    axes.axvline(1, color="#444444", linewidth=0.8)
    first = rows[0]
    axes.set_xlabel(f"time, relative to the first (median and quartiles of {first.rounds} rounds)")
    conditions = f"{first.mode}, {first.dtype}, batch {first.batch}, {first.threads} thread{'s' * (first.threads > 1)}"
    axes.set_title(f"{conditions}, {first.hardware}", fontsize=9)
    write_whole(path, lambda beside: figure.savefig(beside, format=path.suffix[1:], dpi=150))
