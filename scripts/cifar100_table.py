r"""CIFAR-100 on a CPU: ResNet-20 plain and with SE, CBAM and BAM, by one recipe, alone and with a teacher.

    python scripts/cifar100_table.py CIFAR

CIFAR is a folder of CIFAR-100's parquet files. Every network learns all training images by
configs/cifar100_resnet20_cpu.toml, and its last epoch is measured on all test images: nothing is picked by them.
`taught` is the same with the packaged ResNet-56 as a teacher, which learnt for half as many epochs at half the learning
rate. Beside the accuracy stands what the gates do (`zoo.gate_report`), and the accuracy of the weights rounded to half
precision, as scripts/package_weights.py puts them into the package. The teacher has to be there first:

    zoo train configs/cifar100_resnet20_cpu.toml --set data=CIFAR --set model=resnet56_cifar \
        --set epochs=30 --set warmup_epochs=6.0 --set lr=0.01 --set amp=bf16 --out runs/teacher
    python scripts/package_weights.py runs/teacher --data CIFAR --tag cifar100 --license apache-2.0

A row that is in scripts/cifar100_table.csv is not made again, and an interrupted run goes on, so the script goes on
from where it was stopped; several of it can share the work by --ways, --networks and --seeds.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import kernel_targets
import torch
from cifar100_search import RECIPE
from measured import as_table, read_rows
from neutral_table import NETWORKS, SEEDS
from package_weights import in_half
from study import add, is_there, key

import zoo
from zoo.data import open_data
from zoo.hardware import hardware
from zoo.inference.evaluation import evaluate, matched_batches
from zoo.inference.seeds import difference, spread
from zoo.inference.trained import load_trained
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import load_recipe
from zoo.training.run_directory import read_facts
from zoo.training.start import train_once
from zoo.weights.known import require_model
from zoo.weights.manifest import FILE_NAME

TABLE = Path(__file__).with_suffix(".csv")
BACKBONE, TEACHER = "resnet20_cifar", "resnet56_cifar.cifar100"
FORMS = {"": (), "neutral": ("attn_kwargs={neutral = true}",), "published": ("attn_kwargs={neutral = false}",)}
WAYS = ("alone", "taught")
ORDER = {"way": WAYS, "network": list(NETWORKS), "form": list(FORMS)}
TAUGHT = ("temperature=2.0", "standardize_logits=true", "distill=0.9")
HELD = ("all", "channel", "spatial")
"""Of `GateReport.fixed`, what has columns."""
OF_GATES = ("deviation", "between_images", "top1_all", *(f"changed_{which}" for which in HELD))
"""Columns that a plain network leaves empty."""


def recipe_of(way: str, network: str, form: str, seed: int, data: str, settings: Sequence[str]) -> Recipe:
    """The recipe of a row's run."""
    teacher = (f"teacher={TEACHER}", *TAUGHT) if way == "taught" else ()
    model = f"model={NETWORKS[network]}{BACKBONE}"
    return load_recipe(RECIPE, (model, f"data={data}", f"seed={seed}", *FORMS[form], *teacher, *settings))


def of_gates(network: Any, batches: Sequence[Any]) -> dict[str, object]:
    """What the gates do on the test images."""
    report = zoo.gate_report(network, batches)
    changed = {f"changed_{which}": report.fixed[which].changed if which in report.fixed else "" for which in HELD}
    return {
        "deviation": f"{mean(gate.deviation for gate in report.gates.values()):.4f}",
        "between_images": f"{report.between_images:.4f}",
        "top1_all": f"{report.fixed['all'].top1:.2f}",
        **changed,
    }


def measure(recipe: Recipe, place: Path) -> dict[str, object]:
    """What the run in `place` measured, made or gone on with if it is not finished."""
    facts = train_once(place, lambda: recipe)
    ran = read_facts(place)["recipe"]  # of a run that was there its own, whatever was asked for now
    trained, data = load_trained(str(place)), open_data(recipe.data)
    batches = list(matched_batches(trained, data.val, data.classes, 100))
    gates = of_gates(trained.network, batches) if "neutral" in recipe.attn_kwargs else dict.fromkeys(OF_GATES, "")
    trained.network.load_state_dict(in_half(place / "model" / FILE_NAME))
    return {
        "top1": f"{facts['top1']:.2f}",
        "top1_half": f"{evaluate(trained.network, batches).top1:.2f}",
        **{column: facts[column] for column in ("n", "epochs", "seconds")},
        "amp": ran["amp"],
        "compile": ran["compile"],
        **gates,
        "hardware": hardware(torch.device("cpu")),
    }


def wanted(way: str, form: str, seed: int) -> bool:
    """Three seeds of each network by itself with neutral gates; one of the published form, and one with the teacher."""
    usual = way == "alone" and form != "published"
    return usual or (seed == SEEDS[0] and (way == "alone") == (form == "published"))


def jobs(ways: Sequence[str], networks: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What each row is about."""
    rows = [
        (way, network, form, seed)
        for way in ways
        for network in networks
        for form in FORMS
        for seed in seeds
        if bool(form) == bool(NETWORKS[network]) and wanted(way, form, seed)
    ]
    return [dict(zip((*ORDER, "seed"), row, strict=True)) for row in rows]


def by_group(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, ...], list[Mapping[str, str]]]:
    """The seeds of each way, network and form."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["way"], row["network"], row["form"]), []).append(row)
    return groups


def column(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    """A figure of each seed."""
    return [float(row[name]) for row in rows]


def changed(rows: Sequence[Mapping[str, str]]) -> float:
    """Mean share of answers in percent that become others when all gates are held at their averages."""
    return 100 * mean(column(rows, "changed_all")) / float(rows[0]["n"])


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Means over the seeds, as Markdown, with the gain over the plain network of the same way; then `sentences`."""
    heads = (
        "way",
        "network",
        "gates",
        "precision",
        "top-1, %",
        "beside plain",
        "hours",
        "from start",
        "answers changed",
    )
    lines = []
    groups = by_group(rows)
    for (way, network, form), mine in groups.items():
        seeds = "" if len(mine) == sum(wanted(way, form, seed) for seed in SEEDS) else f" ({len(mine)})"
        plain = groups.get((way, "plain", ""), ())
        gain = gain_over(mine, plain) if network != "plain" and plain else "-"
        hours = f"{mean(column(mine, 'seconds')) / 3600:.1f}"
        gates = ("-", "-")
        if network != "plain":
            gates = (f"{mean(column(mine, 'deviation')):.3f}", f"{changed(mine):.1f} %")
        lines.append(
            (way, network, form or "-", precision(mine), spread(column(mine, "top1")) + seeds, gain, hours, *gates)
        )
    missing = len(jobs(WAYS, list(NETWORKS), SEEDS)) - len(rows)
    told = [f"{missing} runs are not there yet."] if missing else []
    return "\n\n".join([as_table(heads, lines), *told, *sentences(groups)])


def precision(rows: Sequence[Mapping[str, str]]) -> str:
    """Of the seeds, with how many of them where it is not one."""
    found = Counter(row["amp"].replace("off", "fp32") for row in rows)
    return ", ".join(f"{count} {name}" if len(found) > 1 else name for name, count in sorted(found.items()))


def gain_over(ours: Sequence[Mapping[str, str]], plain: Sequence[Mapping[str, str]]) -> str:
    """Points above the plain network, and whether the spread of the seeds hides them."""
    tops, others = column(ours, "top1"), column(plain, "top1")
    if len(tops) < 2 or len(others) < 2:
        return f"{mean(tops) - mean(others):+.2f}"
    gain, lost = difference(tops, others)
    return f"{gain:+.2f}{', within the spread' if lost else ''}"


def sentences(groups: Mapping[tuple[str, ...], Sequence[Mapping[str, str]]]) -> list[str]:
    """What each attention gains, takes and does, once all seeds of it and of the plain network are run."""
    costs = {
        (row["subject"], row["dtype"]): float(row["kernels"])
        for row in read_rows(kernel_targets.TABLE)[1]
        if (row["base"], row["task"], row["batch"], row["threads"]) == ("plain", "training", "128", "1")
    }
    plain = groups.get(("alone", "plain", ""), ())
    found = []
    for network, prefix in list(NETWORKS.items())[1:]:
        ours = groups.get(("alone", network, "neutral"), ())
        if min(len(ours), len(plain)) < len(SEEDS):
            continue
        tops, others = column(ours, "top1"), column(plain, "top1")
        takes = {dtype: costs[prefix + BACKBONE, dtype] for dtype in ("fp32", "bf16")}
        found.append(
            f"**{network}**: {mean(tops) - mean(others):+.2f} points beside the plain network, where the seeds of the "
            f"two spread by {stdev(tops):.2f} and {stdev(others):.2f}; a step takes {takes['fp32']:.2f} times as long "
            f"in fp32, {takes['bf16']:.2f} in bf16; its gates lie {mean(column(ours, 'deviation')):.3f} from where "
            f"they start, and {changed(ours):.1f} % of the answers change when all are held at their averages "
            f"({mean(column(ours, 'top1_all')):.2f} % top-1)."
        )
    return ["\n".join(f"- {each}" for each in found)] if found else []


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "cifar100_table")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe, e.g. amp=bf16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "taught" in options.ways:
        require_model(TEACHER)  # before hours of training without it
    for about in jobs(options.ways, options.networks, options.seeds):
        if is_there(about, TABLE, options.runs, ORDER):
            continue
        name = "-".join(filter(None, key(about, ORDER)))
        recipe = recipe_of(**about, data=options.cifar, settings=options.set)
        add(TABLE, options.runs, ORDER, name, about | measure(recipe, options.runs / name))


if __name__ == "__main__":
    main()
