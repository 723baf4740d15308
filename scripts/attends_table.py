"""When does a network use its attention? Tasks in which a place decides, and ways to wake gates in fine-tuning.

    python scripts/attends_table.py FLOWERS

FLOWERS is a folder of class folders of photographs with a held-out part (12 kinds of flowers). Each row of
scripts/attends_table.csv is a run: a network that learns a task of TASKS, from random weights or from the packaged
ImageNet weights, in a way of waking.py, one recipe a task, last epoch, nothing picked. Beside its accuracy stands what
`zoo.gate_report` says: how far gates differ between images, and what becomes of the answers when all gates are fixed at
their averages. The ways are tried with CBAM and seed 0; one by which ENOUGH of the answers change gets the other seeds.
Where attention gains in fine-tuning, plain networks and CBAM learn faster, too. CIFAR-100 from random weights is
in neutral_table.csv. The usual runs on flowers are those of finetune_table.py, where --finetuned says it left them.

A row that is there is not made again, and an interrupted run goes on, so the script goes on from where it was stopped;
several of it can share the work by --tasks and --seeds.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from attention_tasks import cut_small, draw_clutter
from finetune_table import EPOCHS, SETTINGS
from measured import as_table
from study import add, collect, key
from waking import FASTER, WAYS

import zoo
from zoo.data import open_data
from zoo.inference.evaluation import matched_batches
from zoo.inference.seeds import spread
from zoo.inference.trained import load_trained
from zoo.training.fine_tuning import finetune_recipe
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import load_recipe, make_recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
PLANTED = Path(__file__).parents[1] / "configs" / "planted.toml"
NETWORKS = {"plain": "", "SE": "se_", "CBAM": "cbam_", "BAM": "bam_"}
SMALL, LITE = "resnet20_cifar", "tf_efficientnet_lite0"
TASKS = {
    # what it is called: the network, and what the recipe of planted.toml is changed by; none of it in fine-tuning
    "planted shapes": (SMALL, ("epochs=4",)),  # after the recipe's 15, plain networks know them all, too
    "digits in clutter": (SMALL, ("image_size=48", "crop_padding=3", "hflip=0", "epochs=8")),
    "flowers": (LITE, ()),
    "flowers cut small": (LITE, ()),
}
GAINED = "flowers cut small"
"""Where attention gained in fine-tuning."""
SEEDS = (0, 1, 2)
ENOUGH = 0.05
"""Share of the answers."""
ORDER = {"task": list(TASKS), "network": list(NETWORKS), "way": list(WAYS)}
OF_GATES = ("between_images", "changed", "top1_fixed")
"""Columns that a plain network leaves empty."""


def recipe_of(task: str, network: str, way: str, seed: int, data: str) -> Recipe:
    """The recipe of a run."""
    backbone, settings = TASKS[task]
    model = NETWORKS[network] + backbone
    if backbone == SMALL:
        base = load_recipe(PLANTED, ("device=cpu", f"data={data}", *settings))
    else:
        base = finetune_recipe(model, data, epochs=EPOCHS["flowers12"], overrides=SETTINGS)
        if task == "flowers cut small":  # a crop of a third of the canvas may lose the flower
            base = make_recipe(vars(base) | {"crop_scale": 0.8})
    return make_recipe(vars(base) | {"model": model, "seed": seed} | WAYS[way].changes)


def measure(about: Mapping[str, Any], data: str, place: Path) -> dict[str, object]:
    """What a run in `place` measured, made or gone on with if it is not finished, and what its gates do."""
    with WAYS[about["way"]].within():
        facts = train_once(place, lambda: recipe_of(**about, data=data))
        measured: dict[str, object] = {"top1": f"{facts['top1']:.2f}", "n": facts["n"], "seconds": facts["seconds"]}
        if about["network"] == "plain":
            return measured | dict.fromkeys(OF_GATES, "")
        trained, held_out = load_trained(str(place)), open_data(data)
        order = torch.randperm(len(held_out.val), generator=torch.Generator().manual_seed(0)).tolist()
        images = held_out.val.take(order)  # scripts/waking.py, standard_squeeze
        report = zoo.gate_report(trained.network, list(matched_batches(trained, images, held_out.classes, 60, 0)))
    measured["top1"] = f"{report.top1:.2f}"
    answers = report.fixed["all"]
    return measured | {
        "between_images": f"{report.between_images:.4f}",
        "changed": answers.changed,
        "top1_fixed": f"{answers.top1:.2f}",
    }


def jobs(tasks: Sequence[str], seeds: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each row is about: networks first, then ways to wake the gates of fine-tuned ones."""
    promising = {row["way"] for row in rows if row["changed"] != "" and int(row["changed"]) >= ENOUGH * int(row["n"])}
    usual = [
        {"task": task, "network": network, "way": "usual", "seed": seed}
        for seed in seeds
        for task in tasks
        for network in NETWORKS
    ]
    waking = [
        {"task": task, "network": "CBAM", "way": way, "seed": seed}
        for seed in seeds
        for task in tasks
        for way in WAYS
        if way not in ("usual", *FASTER) and TASKS[task][0] == LITE and (seed == SEEDS[0] or way in promising)
    ]
    faster = [
        {"task": GAINED, "network": network, "way": way, "seed": seed}
        for way in FASTER
        for seed in seeds
        for network in ("plain", "CBAM")
        if GAINED in tasks
    ]
    return usual + faster + waking


def run_of(about: Mapping[str, Any], runs: Path, finetuned: Path | None) -> Path:
    """Where a run is or will be."""
    if finetuned and about["task"] == "flowers" and about["way"] == "usual":
        network = about["network"] if about["network"] == "plain" else f"{about['network']}-warm"
        if (place := finetuned / f"{LITE}-flowers12-{network}-{about['seed']}").exists():
            return place
    return runs / "-".join(key(about, ORDER)).replace(" ", "_")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Means over the seeds, as Markdown; what is not all run says its number of seeds."""
    heads = ("task", "network", "way", "top-1, %", "gates differ between images", "answers that change", "top-1 fixed")
    lines = []
    for task, network, way in dict.fromkeys(key(row, ORDER)[:3] for row in rows):
        mine = [row for row in rows if key(row, ORDER)[:3] == (task, network, way)]
        top1 = spread([float(row["top1"]) for row in mine]) + (f" ({len(mine)})" if len(mine) < len(SEEDS) else "")
        fixed = ("-", "-", "-")
        if network != "plain":
            changed = mean(100 * float(row["changed"]) / float(row["n"]) for row in mine)
            apart, then = (mean(float(row[column]) for row in mine) for column in ("between_images", "top1_fixed"))
            fixed = (f"{apart:.3f}", f"{changed:.1f} % of {mine[0]['n']}", f"{then:.2f}")
        lines.append((task, network, way, top1, *fixed))
    missing = len(jobs(list(TASKS), SEEDS, rows)) - len(rows)
    return "\n".join([as_table(heads, lines), *(["", f"{missing} runs are not there yet."] if missing else [])])


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flowers")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "attends_table")
    parser.add_argument("--finetuned", type=Path, metavar="RUNS")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small, clutter = options.runs / "data" / "small", options.runs / "data" / "clutter"
    sets = {"planted shapes": "planted", "digits in clutter": str(clutter)}
    sets |= {"flowers": options.flowers, "flowers cut small": str(small)}
    if not clutter.exists():
        draw_clutter(clutter)
    if not small.exists():
        cut_small(options.flowers, small)
    while True:
        done = collect(TABLE, options.runs, ORDER)
        known = {key(row, ORDER) for row in done}
        missing = [each for each in jobs(options.tasks, options.seeds, done) if key(each, ORDER) not in known]
        if not missing:
            break
        about = missing[0]
        row = about | measure(about, sets[about["task"]], run_of(about, options.runs, options.finetuned))
        add(TABLE, options.runs, ORDER, run_of(about, options.runs, None).name, row)


if __name__ == "__main__":
    main()
