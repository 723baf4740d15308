"""Train {plain, SE, CBAM, BAM} on volumes by one recipe, several seeds, and print the table of what came out.

    python scripts/volume_table.py DATA --runs DIR

DATA is a folder with modelnet10_32.npz (ModelNet10's voxels, 3991 to train and 908 to test) and adrenalmnist3d.npz
(MedMNIST's file, 1188, 98 and 298). Every network gets configs/volumes.toml, and the last epoch counts, on the whole
test part; nothing is picked by it. A run that is there is not repeated, so the script goes on from where it was
stopped. When all are there it writes scripts/volume_table.csv; `--print` prints the table of that file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import timm
import torch
from measured import read_rows, write_rows

from zoo.inference.seeds import spread
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train_once

RECIPE = Path(__file__).parents[1] / "configs" / "volumes.toml"
TABLE = Path(__file__).with_suffix(".csv")
FILES = {"ModelNet10": "modelnet10_32.npz", "AdrenalMNIST3D": "adrenalmnist3d.npz"}
SETTINGS = {
    "ModelNet10": (),
    "AdrenalMNIST3D": ("hflip=0.5",),  # it has no upright axis
}
"""What the recipe is set to for a data set."""
NETWORKS = {
    "plain": "resnet18_volume",
    "SE": "se_resnet18_volume",
    "CBAM": "cbam_resnet18_volume",
    "BAM": "bam_resnet18_volume",
}


def run(data: str, file: Path, label: str, seed: int, runs: Path) -> dict[str, object]:
    """One row of the file, from its run or by making it."""
    place = runs / f"{data}-{label}-{seed}"
    settings = (f"model={NETWORKS[label]}", f"data={file}", f"seed={seed}", *SETTINGS[data])
    facts = train_once(place, lambda: load_recipe(RECIPE, settings))
    return {
        "data": data,
        "network": label,
        "seed": seed,
        "top1": round(facts["top1"], 3),
        "macro_f1": round(facts["macro_f1"], 3),
        "n": facts["n"],
        "epochs": facts["epochs"],
        "seconds": facts["seconds"],
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = ["| data | network | top-1, % | macro-F1, % | seeds | n | seconds a run |", "|---" * 7 + "|"]
    for data, label in dict.fromkeys((row["data"], row["network"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["network"]) == (data, label)]
        cells = [spread([float(row[key]) for row in mine]) for key in ("top1", "macro_f1")]
        seconds = mean(float(row["seconds"]) for row in mine)
        name = NETWORKS[label]
        lines.append(f"| {data} | `{name}` | {' | '.join(cells)} | {len(mine)} | {mine[0]['n']} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the two files, at any depth")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "volume_table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--print", action="store_true", help="print the table that is there, and train nothing")
    options = parser.parse_args()
    if not options.print:
        if options.data is None:
            parser.error("DATA is missing; it is the folder of the two files")
        files = {name: next(options.data.rglob(file), None) for name, file in FILES.items()}
        if missing := [FILES[name] for name, file in files.items() if file is None]:
            parser.error(f"{options.data} does not hold {' or '.join(missing)}")
        torch.set_num_threads(1)
        rows = [
            run(data, file, label, seed, options.runs)
            for seed in options.seeds
            for data, file in files.items()
            if file
            for label in NETWORKS
        ]
        write_rows(TABLE, f"torch {torch.__version__}, timm {timm.__version__}, one CPU thread", rows)
    conditions, saved = read_rows(TABLE)
    print(table(saved), f"\n({conditions}.)", sep="\n")


if __name__ == "__main__":
    main()
