"""Run the ablations of the CBAM and BAM papers on real data: all rows of scripts/ablations.md, several seeds.

    python scripts/ablation_runs.py configs/cifar100_resnet50_300.toml DATA --model resnet50_cifar          one GPU
    python scripts/ablation_runs.py configs/cifar100_resnet20_short.toml DATA --short                       a CPU

The first is the full ablation: the recipe as it is, CIFAR-100 or ImageNet as DATA, the switches of both papers on the
backbone. Not yet run. `--short` is for a CPU: ResNet-20 and the first ten classes of CIFAR-100, 5000 images to train
and 1000 to test. A run that is there is not repeated, so the script goes on from where it was stopped; two of it can
share the work by --seeds. Of all that is there it writes a CSV file, and prints mean and standard deviation over the
seeds beside the paper's figure. scripts/ablation_runs.csv, shown in scripts/ablations.md, is that of a `--short` one.
Differences below two standard deviations say nothing.
"""

import argparse
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import timm
import torch
from ablations import TABLES, Row, Table
from measured import write_rows

import zoo  # noqa: F401
from zoo.card import spread
from zoo.catalog import ATTENTIONS
from zoo.files import write_whole
from zoo.recipe import Recipe, load_recipe, make_recipe
from zoo.train import train_once

SHORT = ("epochs=6", "warmup_epochs=2", "batch_size=64", "lr=0.05", "amp=off", "workers=0", "device=cpu")
CLASSES = 10
"""Of CIFAR-100, in `--short`."""


def networks(backbone: str) -> Iterator[tuple[Table, Row, str]]:
    """Every row of every table, and its network on `backbone`: cbam_resnet50 becomes cbam_BACKBONE."""
    for table in TABLES:
        for row in table.rows:
            attention = re.match("(se|cbam|bam)_", row.model or table.model)
            yield table, row, f"{attention[0] if attention else ''}{backbone}"


def first_classes(data: Path, folder: Path) -> Path:
    """The first CLASSES of CIFAR-100's parquet files, as files of the same names in `folder`."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.glob("*.parquet")):
        # The metadata name all hundred classes.
        table = pq.read_table(path, filters=[("fine_label", "<", CLASSES)]).replace_schema_metadata(None)
        write_whole(folder / path.name, partial(pq.write_table, table))
    return folder


def place_of(recipe: Recipe, runs: Path) -> Path:
    """Rows of several tables that are one network are one run."""
    attention = ATTENTIONS.get(recipe.model.split("_")[0])
    usual = attention.options(2) if attention else {}
    changed = {key: value for key, value in sorted(recipe.attn_kwargs.items()) if value != usual[key]}
    switches = "-".join(f"{key}={value}" for key, value in changed.items())
    return runs / "-".join(filter(None, (recipe.model, switches, str(recipe.seed))))


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", help="data as in a recipe")
    parser.add_argument("--model", default="resnet20_cifar", metavar="BACKBONE", help="default resnet20_cifar")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--short", action="store_true", help=f"{CLASSES} classes, {', '.join(SHORT)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ablation_runs")
    parser.add_argument("--table", type=Path, help="file of the results; RUNS/ablation_runs.csv if left out")
    options = parser.parse_args()
    options.table = options.table or options.runs / "ablation_runs.csv"
    if options.short:
        torch.set_num_threads(1)
        options.data = first_classes(Path(options.data), options.runs / "data")
    base = load_recipe(options.recipe, [*(SHORT if options.short else ()), *options.set])

    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        for table, row, name in networks(options.model):
            changed = {"model": name, "data": str(options.data), "seed": seed, "attn_kwargs": dict(row.attn_kwargs)}
            recipe = make_recipe(vars(base) | changed)
            result = train_once(place_of(recipe, options.runs), lambda recipe=recipe: recipe)
            kept = {key: result[key] for key in ("top1", "n", "epochs", "seconds")}
            rows.append({"table": table.title, "row": row.label, "network": name, "seed": seed, **kept})
    words = [options.recipe.name, *(("--short",) if options.short else ()), *options.set]
    write_rows(options.table, f"{' '.join(words)}, torch {torch.__version__}, timm {timm.__version__}", rows)

    for table in TABLES:
        print(f"\n{table.title}\n")
        print("| | top-1 error, % | seeds | n | seconds a run | paper's errors |\n" + "|---" * 6 + "|")
        for row in table.rows:
            mine = [r for r in rows if (r["table"], r["row"]) == (table.title, row.label)]
            said = spread([100 - float(r["top1"]) for r in mine])  # pyright: ignore
            seconds = mean(float(r["seconds"]) for r in mine)  # pyright: ignore
            print(f"| {row.label} | {said} | {len(mine)} | {mine[0]['n']} | {seconds:.0f} | {row.published} |")


if __name__ == "__main__":
    main()
