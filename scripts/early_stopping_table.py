"""Should fine-tuning stop early? By validation images, or with the learning rate annealed to the end; several seeds.

    python scripts/early_stopping_table.py WEIGHTS.safetensors flowers12=FOLDER ants_bees=FOLDER --runs DIR

WEIGHTS are those of scripts/finetune_table.py. A plain MobileNetV2 learns by `zoo finetune`'s recipe at 128 pixels, its
number of epochs included, in each of WAYS. A set that has a test part gives its result; one that has only a validation
part is measured on that, by which `stop` picks its epoch, so its figure there is flattered. A row that
is in scripts/early_stopping_table.csv is not made again, so the script goes on from where it was stopped.
"""

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from measured import read_rows, require_like, write_rows

import zoo  # noqa: F401
from zoo.inference.seeds import spread
from zoo.training.fine_tuning import finetune_recipe
from zoo.training.recipe import Recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
MODEL = "mobilenetv2_100"
SETTINGS = (
    "image_size=128",
    'model_kwargs={pad_type = "same"}',
    "mean=[0.5, 0.5, 0.5]",
    "std=[0.5, 0.5, 0.5]",
    "channels_last=true",
    "workers=0",
    "device=cpu",
)
WAYS = {
    "stop": "stop after a quarter of the epochs without a better one (at least 3), keep the best",
    "last": "train to the end, keep the last",
}


def recipe_of(way: str, folder: str, weights: str, seed: int) -> Recipe:
    """The recipe of `zoo finetune` for this folder, with the patience of a way."""
    if way == "last":
        return replace(finetune_recipe(MODEL, folder, weights, overrides=SETTINGS), seed=seed)
    picked = finetune_recipe(MODEL, folder, weights, overrides=(*SETTINGS, "patience=1"))
    return replace(picked, patience=max(3, picked.epochs // 4), seed=seed)


def key(row: Mapping[str, object]) -> tuple[str, ...]:
    """What a row is about."""
    return tuple(str(row[column]) for column in ("data", "way", "seed"))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = ["| data | way | top-1, % | n | epochs trained | epoch kept | seconds |", "|---" * 7 + "|"]
    for data, way in dict.fromkeys((row["data"], row["way"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["way"]) == (data, way)]
        epochs, kept = (", ".join(row[column] for row in mine) for column in ("epochs", "kept_epoch"))
        seconds = sum(float(row["seconds"]) for row in mine) / len(mine)
        top1 = spread([float(row["top1"]) for row in mine])
        lines.append(f"| {data} | {WAYS[way]} | {top1} | {mine[0]['n']} | {epochs} | {kept} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "early_stopping_table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    conditions = f"torch {torch.__version__}, timm {timm.__version__}, one thread of {platform.machine()}"
    rows: list[Mapping[str, object]] = list(read_rows(TABLE)[1]) if TABLE.exists() else []
    jobs = [
        (data, folder, way, seed)
        for seed in options.seeds
        for data, folder in (entry.split("=", 1) for entry in options.data)
        for way in WAYS
    ]
    for data, folder, way, seed in jobs:
        about = {"data": data, "way": way, "seed": seed}
        if key(about) in map(key, rows):
            continue
        require_like(TABLE, conditions)
        place = options.runs / f"{data}-{way}-{seed}"
        facts = train_once(
            place,
            lambda way=way, folder=folder, seed=seed: recipe_of(way, folder, str(options.weights), seed),
        )
        measured = {"top1": f"{facts['top1']:.2f}", **{name: facts[name] for name in ("n", "epochs", "kept_epoch")}}
        rows.append({**about, **measured, "seconds": round(facts["seconds"])})
        write_rows(TABLE, conditions, sorted(rows, key=lambda row: (row["data"], list(WAYS).index(str(row["way"])))))
        print(*rows[-1].values(), flush=True)


if __name__ == "__main__":
    main()
