"""By which recipe does the plain ResNet-20 learn CIFAR-100 best, before any attention is measured by it?

    python scripts/cifar100_search.py CIFAR

CIFAR is a folder of CIFAR-100's parquet files. Each recipe is configs/cifar100_resnet20_cpu.toml with the changes that
CHANGES lists, for EPOCHS epochs, a fifth of them warm-up. It learns nine tenths of the training images and is judged by
the last tenth; no test image is looked at. A row is to be compared with those of its precision, the column `amp`. Rows
that are in scripts/cifar100_search.csv are not made again.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from measured import as_table
from study import add, is_there

import zoo  # noqa: F401
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
RECIPE = Path(__file__).parents[1] / "configs" / "cifar100_resnet20_cpu.toml"
EPOCHS = 12
SHORT = (f"epochs={EPOCHS}", f"warmup_epochs={EPOCHS / 5}", "val_fraction=0.1")
CHANGES = {
    "SGD, lr 0.2": ("optimizer=sgd", "lr=0.2", "weight_decay=5e-4", "momentum=0.9"),
    "Muon, lr 0.01": ("lr=0.01",),
    "Muon, lr 0.01, label smoothing 0.1": ("lr=0.01", "label_smoothing=0.1"),
    "Muon, lr 0.02": (),
}
"""Overrides of the recipe, by what a row is called."""
PRECISIONS = ("off", "bf16")
ORDER = {"recipe": list(CHANGES), "amp": PRECISIONS}


def training_part(cifar: Path, folder: Path) -> Path:
    """Links in `folder` to the files of the training images alone, so that the test images are out of reach."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(cifar.rglob("train*.parquet")):
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """As Markdown; behind ± what so few images leave open, 1.96 standard errors of a proportion."""
    lines = []
    for row in rows:
        top1, n = float(row["top1"]), int(row["n"])
        beside = 1.96 * math.sqrt(top1 * (100 - top1) / n)
        precision = "fp32" if row["amp"] == "off" else row["amp"]
        lines.append((row["recipe"], precision, f"{top1:.2f} ± {beside:.2f}", f"{float(row['seconds']):.0f}"))
    return as_table(("recipe", "precision", "top-1, %", "seconds"), lines)


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "cifar100_search")
    parser.add_argument("--recipes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="RECIPE")
    parser.add_argument("--amp", choices=PRECISIONS, default="off", help="whichever is faster on the processor at hand")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = training_part(options.cifar, options.runs / "data")
    usual = (*SHORT, "model=resnet20_cifar", f"data={data}", f"amp={options.amp}")
    for seed in options.seeds:
        for recipe in options.recipes:
            about = {"recipe": recipe, "amp": options.amp, "seed": seed}
            if is_there(about, TABLE, options.runs, ORDER):
                continue
            name = f"{recipe.replace(' ', '_')}-{options.amp}-{seed}"
            changed = load_recipe(RECIPE, (*usual, *CHANGES[recipe], f"seed={seed}"))
            facts = train_once(options.runs / name, lambda changed=changed: changed)
            measured = {"top1": f"{facts['top1']:.2f}", **{each: facts[each] for each in ("n", "epochs", "seconds")}}
            add(TABLE, options.runs, ORDER, name, about | measured)


if __name__ == "__main__":
    main()
