"""Run the ablations of the CBAM and BAM papers on real data: all rows of scripts/ablations.md, several seeds.

    python scripts/ablation_runs.py configs/cifar100_resnet50_300.toml DATA --model resnet50_cifar          one GPU
    python scripts/ablation_runs.py configs/cifar100_resnet20_short.toml DATA --short                       a CPU

The first is the full ablation: the recipe as it is, CIFAR-100 or ImageNet as DATA, the switches of both papers on the
backbone. Not yet run. `--short` is for a CPU: ResNet-20 at 32 pixels, 8 epochs, fp32. Not yet run either.
A run that is there is not repeated, so the script goes on from where it was stopped. Of all that is there it writes
RUNS/ablation_runs.csv, and prints mean and standard deviation over the seeds beside the paper's figure. Differences
below two standard deviations say nothing.
"""

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import timm
import torch
from ablations import TABLES, Row, Table

import zoo  # noqa: F401
from zoo.recipe import Recipe, load_recipe, make_recipe
from zoo.train import train_once

SHORT = ("epochs=8", "warmup_epochs=2", "amp=off", "workers=0", "device=cpu")


def networks(backbone: str) -> Iterator[tuple[Table, Row, str]]:
    """Every row of every table, and its network on `backbone`: cbam_resnet50 becomes cbam_BACKBONE."""
    for table in TABLES:
        for row in table.rows:
            attention = re.match("(se|cbam|bam)_", row.model or table.model)
            yield table, row, f"{attention[0] if attention else ''}{backbone}"


def place_of(recipe: Recipe, runs: Path) -> Path:
    """Rows of several tables that are one network are one run."""
    switches = "-".join(f"{key}={value}" for key, value in sorted(recipe.attn_kwargs.items()))
    return runs / "-".join(filter(None, (recipe.model, switches, str(recipe.seed))))


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("data", help="data as in a recipe")
    parser.add_argument("--model", default="resnet20_cifar", metavar="BACKBONE", help="default resnet20_cifar")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--short", action="store_true", help=f"set {', '.join(SHORT)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ablation_runs")
    options = parser.parse_args()
    if options.short:
        torch.set_num_threads(1)
    base = load_recipe(options.recipe, [*(SHORT if options.short else ()), *options.set])

    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        for table, row, name in networks(options.model):
            changed = {"model": name, "data": options.data, "seed": seed, "attn_kwargs": dict(row.attn_kwargs)}
            recipe = make_recipe(vars(base) | changed)
            result = train_once(place_of(recipe, options.runs), lambda recipe=recipe: recipe)
            kept = {key: result[key] for key in ("top1", "n", "epochs", "seconds")}
            rows.append({"table": table.title, "row": row.label, "network": name, "seed": seed, **kept})
    with (options.runs / "ablation_runs.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {options.recipe.name}, torch {torch.__version__}, timm {timm.__version__}\n")
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    for table in TABLES:
        print(f"\n{table.title}\n")
        print("| | top-1 error, % | seeds | n | seconds a run | paper's errors |\n" + "|---" * 6 + "|")
        for row in table.rows:
            mine = [r for r in rows if (r["table"], r["row"]) == (table.title, row.label)]
            errors = [100 - float(r["top1"]) for r in mine]  # pyright: ignore
            said = f"{mean(errors):.2f}" + (f" ± {stdev(errors):.2f}" if len(errors) > 1 else "")
            seconds = mean(float(r["seconds"]) for r in mine)  # pyright: ignore
            print(f"| {row.label} | {said} | {len(mine)} | {mine[0]['n']} | {seconds:.0f} | {row.published} |")


if __name__ == "__main__":
    main()
