"""Show on real weights that a warm start changes nothing: a plain network's accuracy, logits and features, and its
attention variants'.

    python scripts/warm_start_table.py WEIGHTS.safetensors IMAGES.tar
    python scripts/warm_start_table.py WEIGHTS.safetensors IMAGES.tar --backbone tf_efficientnet_lite0

WEIGHTS are of a plain network for ImageNet whose input is scaled to [-1, 1] and padded as in TensorFlow: MobileNetV2
1.0 (Google Coral's, de-quantised) or EfficientNet-Lite0, both Apache-2.0. IMAGES is a tar file (or a folder) of
ImageNet images in folders named by WordNet id. Five minutes and a gigabyte of memory on two cores for 1000 images. It
puts the network's rows into scripts/warm_start_table.csv.
"""

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from measured import read_rows, require_like, write_rows
from timm.data import create_transform
from torch import Tensor

import zoo  # noqa: F401
from zoo.data import Images
from zoo.inference.evaluation import evaluate

BACKBONE = "mobilenetv2_100"
ATTENTIONS = {
    BACKBONE: ("", "se_", "cbam_", "bam_", "coord_", "scse_", "ha_"),
    "tf_efficientnet_lite0": ("", "se_", "cbam_", "bam_"),
}
"""Networks, and the beginnings of the names of their variants."""
INTERPOLATION = {BACKBONE: "bilinear", "tf_efficientnet_lite0": "bicubic"}
PADDING: dict[str, dict[str, Any]] = {BACKBONE: {"pad_type": "same"}, "tf_efficientnet_lite0": {}}
TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    top1: float
    """Percent."""
    top5: float
    """Percent."""
    n: int
    logits: float
    """Largest absolute difference from the plain network's logits on the first batch."""
    features: float
    """The same of the maps of its stages and of what its classifier reads."""


def read_batches(images: Path, limit: int, interpolation: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 50 of the first `limit` images in random order, with their class indices (sorted folder names)."""
    pixels = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": interpolation, "crop_pct": 0.875}
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


@torch.inference_mode()
def outputs(model: Any, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the maps of all stages with what the classifier reads."""
    last, maps = model.forward_intermediates(images)
    return model(images), [*maps, model.forward_head(last, pre_logits=True)]


def measure(weights: Path, images: Path, limit: int = sys.maxsize, backbone: str = BACKBONE) -> dict[str, Measured]:
    """Score the plain network and its variants on `limit` images."""
    batches = read_batches(images, limit, INTERPOLATION[backbone])
    overlay = {"file": str(weights)}
    results: dict[str, Measured] = {}
    plain = None
    for name in (f"{attention}{backbone}" for attention in ATTENTIONS[backbone]):
        model = timm.create_model(name, True, pretrained_cfg_overlay=overlay, **PADDING[backbone]).eval()
        score = evaluate(model, batches)
        logits, features = outputs(model, batches[0][0])
        plain = plain or (logits, features)
        apart = (logits - plain[0]).abs().max().item()
        others = [(a - b).abs().max().item() for a, b in zip(features, plain[1], strict=True)]
        results[name] = Measured(round(score.top1, 2), round(score.top5, 2), score.n, apart, max(others))
    return results


def table(rows: Sequence[dict[str, str]]) -> str:
    """The rows of the file as Markdown."""
    lines = ["| model | top-1 | top-5 | images | largest difference from the plain logits | from its features |"]
    lines.append("|---" * 6 + "|")
    for row in rows:
        apart = f"{float(row['logits']):.1e} | {float(row['features']):.1e}"
        lines.append(
            f"| `{row['model']}` | {float(row['top1']):.1f} | {float(row['top5']):.1f} | {row['n']} | {apart} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, write the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backbone", choices=ATTENTIONS, default=BACKBONE)
    options = parser.parse_args()
    conditions = f"torch {torch.__version__}, timm {timm.__version__}, CPU"
    require_like(TABLE, conditions)
    measured = measure(options.weights, options.images, backbone=options.backbone)
    before = [row for row in read_rows(TABLE)[1] if row["model"] not in measured] if TABLE.exists() else []
    found: list[Mapping[str, object]] = [{"model": name, **asdict(row)} for name, row in measured.items()]
    rows = sorted([*before, *found], key=lambda row: not str(row["model"]).endswith(BACKBONE))
    write_rows(TABLE, conditions, rows)
    print(table([{key: str(value) for key, value in row.items()} for row in rows]))


if __name__ == "__main__":
    main()
