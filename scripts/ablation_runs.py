"""Run the ablations of the CBAM and BAM papers on a CPU: all rows of scripts/ablations.md, small, several seeds.

    python scripts/ablation_runs.py DATA

DATA is a folder of CIFAR-100's parquet files. ResNet-20 with each row's switches, in the neutral form of its gates and
in the published one, learns its first ten classes, 5000 images, and is tested on 1000. Each run adds its rows to
scripts/ablation_runs.csv, which scripts/ablations.md shows. What is in that file is not run again, so the script goes
on from where it was stopped; two of it can share the work by --seeds or --forms. Differences below two standard
deviations say nothing. The full ablation is a job for a GPU: scripts/gpu/ablation.py.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import timm
import torch
from ablations import FORMS, RUNS, Row, networks, run_name
from measured import read_rows, write_rows

import zoo  # noqa: F401
from zoo.files import write_whole
from zoo.training.recipe_file import load_recipe, make_recipe
from zoo.training.start import train_once

BACKBONE = "resnet20_cifar"
RECIPE = Path(__file__).parents[1] / "configs" / "cifar100_resnet20_short.toml"
SETTINGS = ("epochs=6", "warmup_epochs=2", "batch_size=64", "lr=0.05", "amp=off", "workers=0", "device=cpu")
CLASSES = 10
COLUMNS = ("table", "row", "network", "form", "seed", "top1", "n", "epochs", "seconds", "torch")


def first_classes(data: Path, folder: Path) -> Path:
    """The first CLASSES of CIFAR-100's parquet files, as files of the same names in `folder`."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.rglob("*.parquet")):
        # The metadata name all hundred classes.
        table = pq.read_table(path, filters=[("fine_label", "<", CLASSES)]).replace_schema_metadata(None)
        write_whole(folder / path.name, partial(pq.write_table, table))
    return folder


def key(row: Mapping[str, object]) -> tuple[str, ...]:
    """What a row is about."""
    return tuple(str(row[column]) for column in ("table", "row", "form", "seed"))


def planned(forms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[dict[str, object], Row]]:
    """What each row of the file is about, with the ablation it is of; rows that are one network follow each other."""
    for form in forms:
        for seed in seeds:
            found = sorted(networks(BACKBONE), key=lambda item: run_name(item[2], item[1].attn_kwargs))
            for table, row, model in found:
                if model != BACKBONE or form == FORMS[0]:
                    said = "" if model == BACKBONE else form
                    yield {"table": table.title, "row": row.label, "network": model, "form": said, "seed": seed}, row


def add(about: Mapping[str, object], facts: Mapping[str, object]) -> None:
    """Put a row into the file."""
    measured: dict[str, object] = {name: facts[name] for name in ("top1", "n", "epochs", "seconds", "torch")}
    rows: dict[tuple[str, ...], Mapping[str, object]] = {key(row): row for row in read_rows(RUNS)[1]}
    rows[key(about)] = {name: {**about, **measured}[name] for name in COLUMNS}
    order = {(table.title, row.label): i for i, (table, row, _) in enumerate(networks(BACKBONE))}
    ordered = sorted(
        rows.values(), key=lambda r: (r["form"], int(str(r["seed"])), order[str(r["table"]), str(r["row"])])
    )
    write_rows(RUNS, f"timm {timm.__version__}, one CPU thread", ordered)


def main() -> None:
    """Make the runs that are missing; the file grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ablation_runs")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if next(options.data.rglob("*.parquet"), None) is None:
        parser.error(f"{options.data} holds no parquet files; give the folder of CIFAR-100's")
    torch.set_num_threads(1)
    base = load_recipe(RECIPE, (*SETTINGS, f"data={first_classes(options.data, options.runs / 'data')}"))
    for about, row in planned(options.forms, options.seeds):
        if key(about) in map(key, read_rows(RUNS)[1]):
            continue
        model, seed, form = str(about["network"]), about["seed"], about["form"]
        switches = {**row.attn_kwargs, "neutral": form == "neutral"} if form else {}
        recipe = make_recipe(vars(base) | {"model": model, "seed": seed, "attn_kwargs": switches})
        directory = options.runs / "-".join(filter(None, (run_name(model, row.attn_kwargs), str(form), str(seed))))
        add(about, train_once(directory, lambda recipe=recipe: recipe))
        print(*about.values(), flush=True)


if __name__ == "__main__":
    main()
