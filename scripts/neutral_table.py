"""Does attention help when its gates start at one? Published form against neutral form against the plain network.

    python scripts/neutral_table.py CIFAR VOLUMES

CIFAR is a folder of CIFAR-100's parquet files, VOLUMES the file modelnet10_32.npz. In each of SETTINGS every network of
NETWORKS learns in each of FORMS, by one recipe, and the last epoch counts, on the whole test part; nothing is picked by
it. `published` is the papers' form, `neutral` the same gates divided by the constant they start near, both with random
last layers; `zeroed` is neutral with last layers of zero, so it starts as a plain network: the one of the row `plain`,
`zeroed`, which learns from the same random weights as these, and so tells the start from the gates. Beside the accuracy
stands how many answers change when gates are held at their averages over the test part (scripts/gate_averages.py).

A row that is in scripts/neutral_table.csv is not made again, and an interrupted run goes on, so the script goes on from
where it was stopped. Several of it can share the work, by --settings, --seeds and --forms.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
from ablation_runs import SETTINGS as SHORT
from ablation_runs import first_classes
from gate_averages import HELD, hold_gates
from safetensors.torch import save_file
from study import add, is_there

import zoo  # noqa: F401
from zoo.data import open_data
from zoo.data.input_spec import input_spec
from zoo.data.kinds import Way, kind_of
from zoo.files import write_whole
from zoo.inference.seeds import spread
from zoo.inference.trained import load_trained
from zoo.training.recipe_file import load_recipe, make_recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Setting:
    """A backbone, a data set and a recipe."""

    backbone: str
    recipe: str
    settings: tuple[str, ...]
    data: str = "cifar"
    """Key of the data sets that `main` is given, or "digits", which come with scikit-learn's data."""


SETTINGS = {
    "quickstart, 12 epochs": Setting("resnet20_cifar", "quickstart.toml", ("device=cpu",), data="digits"),
    "ResNet-20, 6 epochs": Setting("resnet20_cifar", "cifar100_resnet20_short.toml", SHORT),
    "ResNet-20, 20 epochs": Setting("resnet20_cifar", "cifar100_resnet20_short.toml", (*SHORT, "epochs=20")),
    "ResNet-18 for volumes, 16 epochs": Setting("resnet18_volume", "volumes.toml", ("device=cpu",), data="volumes"),
    "MobileNetV2, 6 epochs": Setting("mobilenetv2_100_cifar", "cifar100_mobilenetv2_short.toml", SHORT),
}
NETWORKS = {"plain": "", "SE": "se_", "CBAM": "cbam_", "BAM": "bam_"}
FORMS = {"published": {"neutral": False}, "neutral": {"neutral": True}, "zeroed": {"neutral": True}}
"""`attn_kwargs` of each form."""
ORDER = {"setting": list(SETTINGS), "network": list(NETWORKS), "form": ["", *FORMS]}
SEEDS = (0, 1, 2)


def plain_weights(backbone: str, classes: int, seed: int, file: Path) -> str:
    """A file of the plain network's random weights: what a network starts from whose last layers are zeroed."""
    torch.manual_seed(seed)
    network = timm.create_model(backbone, num_classes=classes)
    write_whole(file, lambda beside: save_file(network.state_dict(), beside))
    return str(file)


def measure(setting: Setting, network: str, form: str, seed: int, data: str, place: Path) -> dict[str, object]:
    """What a run in `place` measured, made or gone on with if it is not finished."""
    base = load_recipe(CONFIGS / setting.recipe, (*setting.settings, f"data={data}", "workers=0"))
    changes: dict[str, Any] = {"model": NETWORKS[network] + setting.backbone, "seed": seed}
    if network != "plain":
        changes["attn_kwargs"] = FORMS[form]
    if form == "zeroed":
        file = place.with_suffix(".safetensors")
        changes["weights"] = str(file) if file.exists() else plain_weights(setting.backbone, 10, seed, file)
        changes["by_order"] = True  # the head of random weights names no classes
    facts = train_once(place, lambda: make_recipe(vars(base) | changes))

    trained = load_trained(str(place))
    spec, images = input_spec(trained.network), open_data(data).val
    way = Way(torch.device("cpu"), 100, 0)
    batches = list(kind_of(images).held_out(images, trained.config, spec.shape, way))
    held = hold_gates(trained.network, batches)
    counts = {f"changed_{words}": held[words].changed if words in held else "" for words in HELD}
    tops = {f"top1_{words}": f"{held[words].top1:.2f}" if words in held else "" for words in HELD}
    measured = {"top1": f"{facts['top1']:.2f}", **{key: facts[key] for key in ("n", "epochs", "seconds")}}
    return {**measured, **counts, **tops}


def jobs(settings: Sequence[str], seeds: Sequence[int], forms: Sequence[str]) -> list[tuple[str, str, str, int]]:
    """Setting, network, form and seed of every run."""
    return [
        (setting, network, form, seed)
        for setting in settings
        for seed in seeds
        for network in NETWORKS
        for form in (forms if network != "plain" else ("", *(form for form in forms if form == "zeroed")))
    ]


def mean_of(rows: Sequence[dict[str, str]], column: str) -> str:
    """Mean of a count over the seeds; a dash where a network has nothing to count."""
    values = [float(row[column]) for row in rows if row[column]]
    return f"{mean(values):.0f}" if values else "-"


def table(rows: Sequence[dict[str, str]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown; what is not all run says its number of seeds."""
    lines = ["| setting | network | gates | top-1, % | n | answers that change: all gates held | channel | spatial |"]
    lines.append("|---" * 8 + "|")
    for setting, network, form in dict.fromkeys((row["setting"], row["network"], row["form"]) for row in rows):
        mine = [row for row in rows if (row["setting"], row["network"], row["form"]) == (setting, network, form)]
        top1 = spread([float(row["top1"]) for row in mine]) + (f" ({len(mine)})" if len(mine) < len(SEEDS) else "")
        held = " | ".join(mean_of(mine, f"changed_{words}") for words in HELD)
        lines.append(f"| {setting} | {network} | {form or '-'} | {top1} | {mine[0]['n']} | {held} |")
    missing = len(jobs(list(SETTINGS), SEEDS, list(FORMS))) - len(rows)
    said = ["", f"{missing} of {missing + len(rows)} runs are not there yet."] if missing else []
    return "\n".join([*lines, *said, "", *gains(rows)])


COMPARED = {
    "neutral above published": ("neutral", "published"),
    "neutral above plain": ("neutral", ""),
    "zeroed above plain of its start": ("zeroed", "zeroed"),
}
"""The form of a network with gates, and that of what it is compared with: of itself, or of the plain network."""


def gains(rows: Sequence[dict[str, str]]) -> list[str]:
    """How many points gates gain, where all seeds of both are run."""
    top1: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        top1.setdefault((row["setting"], row["network"], row["form"]), []).append(float(row["top1"]))
    lines = ["| points | " + " | ".join(SETTINGS) + " |", "|---" * (len(SETTINGS) + 1) + "|"]
    for network in list(NETWORKS)[1:]:
        for words, (form, other) in COMPARED.items():
            beside = network if other == "published" else "plain"
            pairs = [(top1.get((each, network, form), []), top1.get((each, beside, other), [])) for each in SETTINGS]
            lines.append(f"| {network}, {words} | {' | '.join(_gain(*pair) for pair in pairs)} |")
    return lines


def _gain(ours: Sequence[float], others: Sequence[float]) -> str:
    """The difference of the means, in bold if it is beyond two standard deviations of the seeds."""
    if min(len(ours), len(others)) < len(SEEDS):
        return "-"
    gain = round(mean(ours) - mean(others), 2) + 0.0  # never -0.00
    beyond = abs(gain) > 2 * max(stdev(ours), stdev(others)) + 0.005  # a difference of 0 is none where nothing spreads
    return f"**{gain:+.2f}**" if beyond else f"{gain:+.2f}"


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("volumes", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "neutral_table")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cifar = first_classes(options.cifar, options.runs / "data")
    sets = {"cifar": str(cifar), "volumes": str(options.volumes), "digits": "digits"}
    for setting, network, form, seed in jobs(options.settings, options.seeds, options.forms):
        about = {"setting": setting, "network": network, "form": form, "seed": seed}
        if is_there(about, TABLE, options.runs, ORDER):
            continue
        name = "-".join(filter(None, (setting.replace(" ", "_").replace(",", ""), network, form, str(seed))))
        data = sets[SETTINGS[setting].data]
        row = about | measure(SETTINGS[setting], network, form, seed, data, options.runs / name)
        add(TABLE, options.runs, ORDER, name, row)


if __name__ == "__main__":
    main()
