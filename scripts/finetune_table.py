"""Fine-tune a real ImageNet network, plain and with attention, on small sets of photographs; several seeds.

    python scripts/finetune_table.py WEIGHTS.safetensors flowers12=FOLDER ants_bees=FOLDER --runs DIR
    python scripts/finetune_table.py WEIGHTS.safetensors flowers12=FOLDER --backbone tf_efficientnet_lite0

WEIGHTS are of a plain network whose input is scaled to [-1, 1] and padded as in TensorFlow: MobileNetV2 1.0 (Google
Coral's, de-quantised) or EfficientNet-Lite0, both Apache-2.0. Every network gets the same recipe and the same weights:
the attention starts by the exact warm start, and once more, for comparison, with random gates beside the copied weights
("naive"). The last epoch counts, on the whole held-out part; nothing is picked by it. A run that is there is not
repeated, so the script goes on from where it was stopped; two of it can share the work by --seeds. It writes
scripts/finetune_table.csv when all are there, of another network than MobileNetV2 scripts/finetune_table_NETWORK.csv.
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
PADDING = {BACKBONE: 'model_kwargs={pad_type = "same"}', "tf_efficientnet_lite0": "model_kwargs={}"}
"""Networks that there are weights of, and what makes timm pad as TensorFlow does."""
NETWORKS = {"plain": "", "SE, warm": "se_", "CBAM, warm": "cbam_", "BAM, warm": "bam_", "CBAM, naive": "cbam_"}
"""What a row is called -> what its model's name has in front of the network's."""
EPOCHS = {"flowers12": 6, "ants_bees": 6}
SETTINGS = (
    "image_size=128",
    "patience=0",
    "mean=[0.5, 0.5, 0.5]",
    "std=[0.5, 0.5, 0.5]",
    "channels_last=true",
    "workers=0",
    "device=cpu",
)


def naive_weights(plain: Path, model: str, seed: int, to: Path) -> Path:
    """A file with the plain weights copied by name, and gates as a fresh network of that seed has them, published."""
    torch.manual_seed(seed)
    state = timm.create_model(model).state_dict()
    state.update(load_file(plain))
    save_file(state, to, {"format": "pt", "neutral": "false"})
    return to


def run(weights: Path, data: str, folder: str, label: str, seed: int, runs: Path, backbone: str) -> dict[str, object]:
    """One row of the table, from its run or by making it."""
    model = f"{NETWORKS[label]}{backbone}"
    place = runs / "-".join([*([] if backbone == BACKBONE else [backbone]), data, label.replace(", ", "-"), str(seed)])

    def recipe() -> Recipe:
        naive = label.endswith("naive")
        start = naive_weights(weights, model, seed, runs / f"{place.name}.safetensors") if naive else weights
        return replace(
            finetune_recipe(model, folder, str(start), EPOCHS[data], (*SETTINGS, PADDING[backbone])), seed=seed
        )

    result = train_once(place, recipe)
    return {"data": data, "network": label, "seed": seed, **{k: round(result[k], 2) for k in ("top1", "n", "seconds")}}


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "finetune_table")
    parser.add_argument("--backbone", choices=PADDING, default=BACKBONE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    folders = dict(entry.split("=", 1) for entry in options.data)
    rows = [
        run(options.weights, data, folder, label, seed, options.runs, options.backbone)
        for seed in options.seeds
        for data, folder in folders.items()
        for label in NETWORKS
    ]
    table = TABLE if options.backbone == BACKBONE else TABLE.with_stem(f"{TABLE.stem}_{options.backbone}")
    path = table if len(options.seeds) >= 3 else options.runs / table.name
    write_rows(path, f"torch {torch.__version__}, timm {timm.__version__}, one thread of {platform.machine()}", rows)
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
