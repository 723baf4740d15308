"""What keeps the gates of a network alive that is trained from random weights?

    python scripts/dead_gates.py CIFAR

CIFAR is a folder of CIFAR-100's parquet files. SE and CBAM in ResNet-20 learn by configs/cifar100_resnet20_cpu.toml as
in scripts/cifar100_search.py: 12 epochs on nine tenths of the training images, judged by the last tenth; no test image
is looked at. `rate` is what the gates' learning rate is multiplied by; `biases` are those of the hidden units: as
drawn, half of them below 0, or positive. A gate is called constant that differs between those images by less than
CONSTANT: its hidden units are dead, and it could as well be a weight. Rows that are in scripts/dead_gates.csv are not
made again.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from cifar100_search import RECIPE, SHORT, training_part
from cifar100_table import BACKBONE, changed
from measured import as_table
from neutral_table import NETWORKS
from package_weights import look_at_gates
from study import add, is_there

from zoo.attention.excitation import ChannelExcitation
from zoo.training.recipe_file import load_recipe
from zoo.training.run_directory import read_facts
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
GATED = ("SE", "CBAM")
BIASES = {"drawn": lambda: patch.object(ChannelExcitation, "wake", lambda self: None), "positive": nullcontext}
RATES = ("1", "0.1")
ORDER = {"network": GATED, "biases": list(BIASES), "rate": RATES}
CONSTANT = 1e-3
"""Root mean square over the images, of gates that start at 1."""


def measure(place: Path, data: str) -> dict[str, object]:
    """What the gates of the run in `place` do on the images it was judged by."""
    report = look_at_gates(place, data)
    return {
        "gates": len(report.gates),
        "constant": sum(gate.between_images < CONSTANT for gate in report.gates.values()),
        "changed_all": report.fixed["all"].changed,
    }


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """As Markdown."""
    heads = ("network", "hidden biases", "rate of the gates", "top-1, %", "constant gates", "answers that change")
    lines = []
    for row in rows:
        constant = f"{row['constant']} of {row['gates']}"
        top1, share = f"{float(row['top1']):.2f}", f"{changed([row]):.1f} %"
        lines.append((row["network"], row["biases"], row["rate"], top1, constant, share))
    return as_table(heads, lines)


def main() -> None:
    """Make the runs that are missing; the table grows by a row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "dead_gates")
    parser.add_argument("--networks", nargs="+", choices=GATED, default=GATED)
    parser.add_argument("--biases", nargs="+", choices=BIASES, default=list(BIASES))
    parser.add_argument("--rates", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe, e.g. amp=bf16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = str(training_part(options.cifar, options.runs / "data"))
    for network, biases, rate in product(options.networks, options.biases, options.rates):
        about = {"network": network, "biases": biases, "rate": rate, "seed": 0}
        if is_there(about, TABLE, options.runs, ORDER):
            continue
        name = f"{network}-{biases}-{rate}"
        changes = (f"model={NETWORKS[network]}{BACKBONE}", f"data={data}", "seed=0", f"gate_lr_scale={rate}")
        recipe = load_recipe(RECIPE, (*SHORT, *changes, *options.set))
        with BIASES[biases]():
            facts = train_once(options.runs / name, lambda recipe=recipe: recipe)
        ran = read_facts(options.runs / name)["recipe"]  # of a run that was there its own
        figures = {"top1": f"{facts['top1']:.2f}", "n": facts["n"], "amp": ran["amp"], "seconds": facts["seconds"]}
        add(TABLE, options.runs, ORDER, name, about | figures | measure(options.runs / name, data))


if __name__ == "__main__":
    main()
