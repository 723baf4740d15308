"""What a trained network still knows after attention is put into it: by timm's switch, and by the warm start.

    python scripts/before_after.py

Nothing is downloaded. It trains the plain `resnet20_cifar` on the embedded digits by configs/quickstart.toml, half a
minute a seed on a CPU core, and puts its weights into two networks with attention, which are not trained any further:

    timm  timm.create_model("resnet20_cifar", block_args=dict(attn_layer="cbam")), the weights loaded with strict=False:
          timm's own gates, which are as random as timm makes them
    zoo   zoo.warm_start(timm.create_model("cbam_resnet20_cifar"), weights)

and the same for SE. Each sees the held-out digits. A row of scripts/before_after.csv is a network and a seed: the
cosine between its logits and the plain network's, mean over the images, and its top-1 in percent. A run that is there
is not repeated.
"""

import argparse
import platform
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from measured import write_rows
from timm.data import create_transform
from torch import Tensor, nn

import zoo
from zoo.data import open_data
from zoo.inference.trained import load_trained
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train_once

TABLE = Path(__file__).with_suffix(".csv")
RECIPE = Path(__file__).parents[1] / "configs" / "quickstart.toml"
BACKBONE = "resnet20_cifar"
ATTENTIONS = ("cbam", "se")


def timms_way(weights: dict[str, Tensor], attention: str, seed: int) -> nn.Module:
    """timm's own gates in the same network, random, beside the weights that have a place in it."""
    torch.manual_seed(seed)
    model = timm.create_model(BACKBONE, num_classes=10, block_args=dict(attn_layer=attention))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing and not unexpected and all(".se." in key for key in missing)
    return model.eval()


def zoos_way(weights: dict[str, Tensor], attention: str, seed: int) -> nn.Module:
    """The zoo's gates, each a constant that the weights beside it take up."""
    torch.manual_seed(seed)
    return zoo.warm_start(timm.create_model(f"{attention}_{BACKBONE}", num_classes=10), weights).eval()


WAYS = {"timm": timms_way, "zoo": zoos_way}


def measure(place: Path, seed: int) -> list[dict[str, object]]:
    """The rows of a seed, from its run in `place` or by making it."""
    train_once(place, lambda: load_recipe(RECIPE, (f"model={BACKBONE}", f"seed={seed}", "device=cpu")))
    trained = load_trained(str(place))
    transform: Any = create_transform(**trained.config)
    pairs = [(transform(image), label) for image, label in open_data("digits").val]
    images, labels = torch.stack([pixels for pixels, _ in pairs]), torch.tensor([label for _, label in pairs])
    weights = trained.network.state_dict()
    networks = {("plain", ""): trained.network}
    networks |= {(way, name): make(weights, name, seed) for name in ATTENTIONS for way, make in WAYS.items()}
    with torch.inference_mode():
        reference = trained.network(images)
        logits = {key: network(images) for key, network in networks.items()}
    return [
        {
            "gates": gates,
            "attention": attention,
            "seed": seed,
            "cosine": f"{F.cosine_similarity(found.double(), reference.double()).mean():.6f}",
            "largest_difference": f"{(found - reference).abs().max():.3g}",
            "top1": f"{100 * (found.argmax(1) == labels).double().mean():.2f}",
            "n": len(labels),
        }
        for (gates, attention), found in logits.items()
    ]


def main() -> None:
    """Make the runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "before_after")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for seed in options.seeds for row in measure(options.runs / str(seed), seed)]
    conditions = f"torch {torch.__version__}, timm {timm.__version__}, one thread of {platform.machine()}"
    write_rows(options.out, conditions, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
