"""Run the ablations of the CBAM and BAM papers on a CPU: all rows of scripts/ablations.md, small, several seeds.

    python scripts/ablation_runs.py DATA

DATA is a folder of CIFAR-100's parquet files. ResNet-20 with each row's switches learns its first ten classes, 5000
images, and is tested on 1000. A run that is there is not repeated, so the script goes on from where it was stopped; two
of it can share the work by --seeds. When all are there it writes scripts/ablation_runs.csv, which scripts/ablations.md
shows, and prints mean and standard deviation over the seeds beside the paper's figure. Differences below two standard
deviations say nothing. The full ablation is a job for a GPU: scripts/gpu/ablation.py.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import mean

import timm
import torch
from ablations import RUNS, TABLES, networks, run_name
from measured import write_rows

import zoo  # noqa: F401
from zoo.files import write_whole
from zoo.release.figures import spread
from zoo.training.recipe_file import load_recipe, make_recipe
from zoo.training.start import train_once

BACKBONE = "resnet20_cifar"
RECIPE = Path(__file__).parents[1] / "configs" / "cifar100_resnet20_short.toml"
SETTINGS = ("epochs=6", "warmup_epochs=2", "batch_size=64", "lr=0.05", "amp=off", "workers=0", "device=cpu")
CLASSES = 10


def first_classes(data: Path, folder: Path) -> Path:
    """The first CLASSES of CIFAR-100's parquet files, as files of the same names in `folder`."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.rglob("*.parquet")):
        # The metadata name all hundred classes.
        table = pq.read_table(path, filters=[("fine_label", "<", CLASSES)]).replace_schema_metadata(None)
        write_whole(folder / path.name, partial(pq.write_table, table))
    return folder


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ablation_runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if next(options.data.rglob("*.parquet"), None) is None:
        parser.error(f"{options.data} holds no parquet files; give the folder of CIFAR-100's")
    torch.set_num_threads(1)
    base = load_recipe(RECIPE, (*SETTINGS, f"data={first_classes(options.data, options.runs / 'data')}"))

    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        for table, row, model in networks(BACKBONE):
            recipe = make_recipe(vars(base) | {"model": model, "seed": seed, "attn_kwargs": dict(row.attn_kwargs)})
            directory = options.runs / f"{run_name(model, row.attn_kwargs)}-{seed}"
            result = train_once(directory, lambda recipe=recipe: recipe)
            kept = {key: result[key] for key in ("top1", "n", "epochs", "seconds")}
            rows.append({"table": table.title, "row": row.label, "network": model, "seed": seed, **kept})
    path = RUNS if len(options.seeds) >= 3 else options.runs / RUNS.name
    write_rows(path, f"torch {torch.__version__}, timm {timm.__version__}, one CPU thread", rows)

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
