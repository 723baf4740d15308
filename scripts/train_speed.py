"""Images a second of `zoo train`, with kernels and without, as its own file says: ResNet-20 on CIFAR images.

    python scripts/train_speed.py DATA

DATA is a folder of CIFAR-100's parquet files, of which ten classes are taken, 5000 images, for EPOCHS epochs on all
cores. The first epoch, in which kernels may be compiled, does not count; a number is the median of the others.
"""

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ablation_runs import RECIPE, first_classes
from measured import read_rows, require_like, write_rows

from zoo.hardware import at_work

TABLE = Path(__file__).with_suffix(".csv")
NETWORKS = ("resnet20_cifar", "se_resnet20_cifar", "cbam_resnet20_cifar", "bam_resnet20_cifar")
WAYS = {"eager": "off", "kernels": "auto"}
"""ZOO_KERNELS of each column."""
EPOCHS = 4


def speed(network: str, amp: str, way: str, data: Path, out: Path) -> float:
    """Images a second of a run in `out`."""
    recipe = {"model": network, "data": data, "amp": amp, "epochs": EPOCHS, "warmup_epochs": 1}
    settings = [f"--set={key}={value}" for key, value in {**recipe, "batch_size": 128, "workers": 0}.items()]
    environment = {**os.environ, "ZOO_KERNELS": way}
    subprocess.run(
        ["zoo", "train", str(RECIPE), "--out", str(out), *settings], env=environment, check=True, capture_output=True
    )
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        _, *epochs = csv.DictReader(file)
    return statistics.median(float(epoch["images_per_second"]) for epoch in epochs)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown: images a second, and the time beside the plain network."""
    plain = {row["amp"]: float(row["eager"]) for row in rows if row["network"] == NETWORKS[0]}
    lines = ["| network | amp | kernels off | on |", "|---|---|---|---|"]
    for row in rows:
        cells = [
            f"{float(row[way]):.0f} (x {plain[row['amp']] / float(row[way]):.2f})" if row[way] else "-" for way in WAYS
        ]
        lines.append(f"| `{row['network']}` | {row['amp']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing in the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = read_rows(TABLE)[1] if TABLE.exists() else []
    conditions = (
        f"batches of 128 of 32x32; {at_work(torch.device('cpu'))}; "
        f"torch {torch.__version__}, numba {version('numba')}, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = first_classes(options.data, Path(place) / "data")
        for amp in ("off", "bf16"):
            for network in NETWORKS:
                if any((row["network"], row["amp"]) == (network, amp) for row in rows):
                    continue
                require_like(TABLE, conditions)
                row: dict[str, Any] = {"network": network, "amp": amp}
                for name, way in WAYS.items():
                    plain = network == NETWORKS[0] and name != "eager"
                    out = Path(place) / f"{network}-{amp}-{name}"
                    row[name] = "" if plain else f"{speed(network, amp, way, folder, out):.1f}"
                rows.append(row)
                write_rows(TABLE, conditions, rows)
                print(row, file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
