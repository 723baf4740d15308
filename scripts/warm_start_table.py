"""Show on real weights that a warm start changes nothing: accuracy of a plain network and of its attention variants.

    python scripts/warm_start_table.py WEIGHTS.safetensors IMAGES.tar

WEIGHTS are of a plain MobileNetV2 1.0 for ImageNet whose input is scaled to [-1, 1] and padded as in TensorFlow
(Google Coral's, de-quantised: Apache-2.0). IMAGES is a tar file (or a folder) of ImageNet images in folders named by
WordNet id. Two minutes and a gigabyte of memory on two cores for 1000 images.
"""

import argparse
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform

import zoo  # noqa: F401
from zoo.data import Images
from zoo.inference.evaluation import evaluate

BACKBONE = "mobilenetv2_100"
MODELS = (BACKBONE, f"se_{BACKBONE}", f"cbam_{BACKBONE}", f"bam_{BACKBONE}")


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    top1: float
    """Percent."""
    top5: float
    """Percent."""
    n: int
    difference: float
    """Largest absolute difference from the plain network's logits on the first batch."""


def read_batches(images: Path, limit: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 50 of the first `limit` images in random order, with their class indices (sorted folder names)."""
    pixels = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 0.875}
    with tempfile.TemporaryDirectory() as folder:
        if images.is_file():
            with tarfile.open(images) as archive:
                archive.extractall(folder, filter="data")
        files = sorted(Path(folder if images.is_file() else images).glob("*/*"))
        classes = sorted({file.parent.name for file in files})
        dataset = Images(files, [classes.index(file.parent.name) for file in files])
        transform: Any = create_transform((3, 224, 224), **pixels)  # pyright: ignore
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:limit].tolist()
        parts = [order[start : start + 50] for start in range(0, len(order), 50)]
        return [
            (torch.stack([transform(dataset[i][0]) for i in part]), torch.tensor([dataset.labels[i] for i in part]))
            for part in parts
        ]


def measure(weights: Path, images: Path, limit: int = sys.maxsize) -> dict[str, Measured]:
    """Score the plain network and its variants on `limit` images."""
    batches = read_batches(images, limit)
    overlay = {"file": str(weights)}
    results: dict[str, Measured] = {}
    reference = None
    for name in MODELS:
        model = timm.create_model(name, pretrained=True, pad_type="same", pretrained_cfg_overlay=overlay).eval()
        score = evaluate(model, batches)
        with torch.inference_mode():
            logits = model(batches[0][0])
        reference = logits if reference is None else reference
        results[name] = Measured(score.top1, score.top5, score.n, (logits - reference).abs().max().item())
    return results


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, CPU\n")
    print("| model | top-1 | top-5 | images | largest difference from the plain logits (50 images) |")
    print("|---|---|---|---|---|")
    for name, row in measure(options.weights, options.images).items():
        print(f"| `{name}` | {row.top1:.1f} | {row.top5:.1f} | {row.n} | {row.difference:.1e} |")


if __name__ == "__main__":
    main()
