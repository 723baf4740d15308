"""Fine-tune a real ImageNet MobileNetV2, plain and with attention, on small sets of photographs; several seeds.

    python scripts/finetune_table.py WEIGHTS.safetensors flowers12=FOLDER ants_bees=FOLDER --runs DIR

WEIGHTS are of a plain MobileNetV2 1.0 whose input is scaled to [-1, 1] and padded as in TensorFlow (Google Coral's,
de-quantised: Apache-2.0). Every network gets the same recipe and the same weights: the attention starts by the exact
warm start, and once more, for comparison, with random gates beside the copied weights ("naive"). The last epoch counts,
on the whole held-out part; nothing is picked by it. A run that is there is not repeated, so the script goes on from
where it was stopped; two of it can share the work by --seeds. It writes scripts/finetune_table.csv when all are there.
"""

import argparse
import platform
from dataclasses import replace
from pathlib import Path

import timm
import torch
from measured import write_rows
from safetensors.torch import load_file, save_file

import zoo  # noqa: F401
from zoo.training.fine_tuning import finetune_recipe
from zoo.training.recipe import Recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
BACKBONE = "mobilenetv2_100"
NETWORKS = {
    "plain": BACKBONE,
    "SE, warm": f"se_{BACKBONE}",
    "CBAM, warm": f"cbam_{BACKBONE}",
    "BAM, warm": f"bam_{BACKBONE}",
    "CBAM, naive": f"cbam_{BACKBONE}",
}
EPOCHS = {"flowers12": 6, "ants_bees": 6}
SETTINGS = (
    "image_size=128",
    "patience=0",
    'model_kwargs={pad_type = "same"}',
    "mean=[0.5, 0.5, 0.5]",
    "std=[0.5, 0.5, 0.5]",
    "channels_last=true",
    "workers=0",
    "device=cpu",
)


def naive_weights(plain: Path, model: str, seed: int, to: Path) -> Path:
    """A file with the plain weights copied by name, and gates as a fresh network of that seed has them."""
    torch.manual_seed(seed)
    state = timm.create_model(model).state_dict()
    state.update(load_file(plain))
    save_file(state, to)
    return to


def run(weights: Path, data: str, folder: str, label: str, seed: int, runs: Path) -> dict[str, object]:
    """One row of the table, from its run or by making it."""
    model = NETWORKS[label]
    place = runs / f"{data}-{label.replace(', ', '-')}-{seed}"

    def recipe() -> Recipe:
        naive = label.endswith("naive")
        start = naive_weights(weights, model, seed, runs / f"{place.name}.safetensors") if naive else weights
        return replace(finetune_recipe(model, folder, str(start), EPOCHS[data], SETTINGS), seed=seed)

    result = train_once(place, recipe)
    return {"data": data, "network": label, "seed": seed, **{k: round(result[k], 2) for k in ("top1", "n", "seconds")}}


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "finetune_table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    folders = dict(entry.split("=", 1) for entry in options.data)
    rows = [
        run(options.weights, data, folder, label, seed, options.runs)
        for seed in options.seeds
        for data, folder in folders.items()
        for label in NETWORKS
    ]
    path = TABLE if len(options.seeds) >= 3 else options.runs / TABLE.name
    write_rows(path, f"torch {torch.__version__}, timm {timm.__version__}, one thread of {platform.machine()}", rows)
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
