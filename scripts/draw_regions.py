"""Draw the regions that HA-CNN's hard attention crops from a picture: `python scripts/draw_regions.py`.

    python scripts/draw_regions.py --picture photo.jpg --model runs/hacnn --out regions.png

A panel for each of the three levels, a colour for each region. Without `--model` the network is freshly built, and its
regions lie where training starts: spread over the height, the same in every picture. Without `--picture` it is the
photograph flower.jpg that scikit-learn ships (flickr.com/photos/vultilion/6056698931, CC BY 2.0).
"""

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image, ImageDraw
from timm.data import create_transform
from torch import Tensor, nn

from zoo.attention import HarmoniousAttention
from zoo.inference.trained import load_trained
from zoo.networks.hacnn import HACNN

COLOURS = ("#e6194b", "#ffe119", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6")


def regions(model: HACNN, image: Tensor) -> list[Tensor]:
    """Boxes of the regions of one image (1, C, H, W), a tensor (T, 4) a level: left, top, right, bottom in 0 to 1."""
    centres: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        centres.append(output[1][0])

    found = [module for module in model.modules() if isinstance(module, HarmoniousAttention)]
    hooks = [module.register_forward_hook(note) for module in found]
    with torch.inference_mode():
        model(image)
    for hook in hooks:
        hook.remove()
    half = torch.tensor([1.0, 1 / model.regions])  # a region's half width and half height in (-1, 1)
    return [(torch.cat((c - half, c + half), 1) + 1) / 2 for c in centres]


def draw(picture: Image.Image, levels: list[Tensor]) -> Image.Image:
    """The picture once a level, side by side, with that level's boxes."""
    width, height = picture.size
    sheet = Image.new("RGB", (width * len(levels), height))
    for i, boxes in enumerate(levels):
        panel = picture.copy()
        pen = ImageDraw.Draw(panel)
        for region, (left, top, right, bottom) in enumerate(boxes.tolist()):
            inset = 2 + 4 * region  # regions overlap, and none should hide another's edge
            box = [left * width + inset, top * height, right * width - inset, bottom * height]
            pen.rectangle(box, outline=COLOURS[region % len(COLOURS)], width=3)
        sheet.paste(panel, (i * width, 0))
    return sheet


def photograph(path: Path | None) -> Image.Image:
    """The picture at `path`, or scikit-learn's."""
    if path is not None:
        return Image.open(path).convert("RGB")
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("flower.jpg"))


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--model", help="run directory, model folder or hf-hub:ORG/NAME of a trained hacnn")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("regions.png"))
    options = parser.parse_args()
    if options.model:
        trained = load_trained(options.model)
        model, config = trained.network, trained.config
    else:
        model = timm.create_model("hacnn").eval()
        config: dict[str, Any] = {"input_size": (3, 160, 64)}
    if not isinstance(model, HACNN) or not model.local_branch:
        parser.error(f"{options.model} has no hard attention; it must be a hacnn with its local branch")
    picture = photograph(options.picture)
    picture.thumbnail((320, 320))
    _, height, width = config["input_size"]
    # The whole picture, squeezed to the network's size, so that boxes in the network are boxes in the picture.
    transform: Any = create_transform(**{**config, "crop_pct": 1.0, "crop_mode": "squash"})
    boxes = regions(model, transform(picture.resize((width, height)))[None])
    draw(picture, boxes).quantize(128).save(options.out, optimize=True)
    print(f"{options.out}: {len(boxes)} levels, {model.regions} regions each")


if __name__ == "__main__":
    main()
