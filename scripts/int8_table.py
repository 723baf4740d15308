"""What int8 costs on real weights: networks in float and quantised per channel and per tensor, on ImageNet images.

    python scripts/int8_table.py IMAGES [MOBILENETV2.safetensors]

EfficientNet-Lite0, whose weights lie in the package, plain and with CBAM, and MobileNetV2 of Google's Coral
(Apache-2.0, de-quantised, padded as in TensorFlow) likewise. IMAGES is a tar file or a folder of ImageNet images in
folders named by WordNet id. Every fourth one is for calibrating (`zoo export --int8` takes half of them), the others
are counted. Ten minutes on a core for 1000 images; it writes scripts/int8_table.csv, and leaves out the networks that
are there.
"""

import argparse
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from measured import read_rows, require_like, write_rows
from timm.data import resolve_data_config

import zoo  # noqa: F401
from zoo.export.int8 import quantise
from zoo.export.onnx_file import write_onnx
from zoo.export.writing import config_of
from zoo.inference import Trained
from zoo.inference.exported import About, load_exported
from zoo.models.macs import parameter_count
from zoo.weights.load import load_network

TABLE = Path(__file__).with_suffix(".csv")
EVERY = 4
"""One of so many images is for calibrating."""
CORAL = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 0.875}
AXES = ("batch", "height", "width")
FORMS = ("float, PyTorch", "float, ONNX Runtime", "int8 per channel", "int8 per tensor")


def networks(weights: Path | None) -> dict[str, Any]:
    """Functions that build them, by name."""
    overlay = {"file": str(weights), **CORAL}
    packaged = ("tf_efficientnet_lite0", "cbam_tf_efficientnet_lite0")
    found: dict[str, Any] = {name: lambda name=name: load_network(name) for name in packaged}
    for name in ("mobilenetv2_100", "cbam_mobilenetv2_100") if weights else ():
        found[name] = lambda name=name: timm.create_model(name, True, pretrained_cfg_overlay=overlay, pad_type="same")
    return found


@torch.inference_mode()
def measure(name: str, network: Any, images: Path) -> list[Mapping[str, object]]:
    """The network's rows of the table."""
    trained = Trained(name, network.eval(), resolve_data_config({}, model=network), ())
    files = sorted(images.glob("*/*"))
    classes = sorted({file.parent.name for file in files})
    assert len(classes) == network.num_classes, f"{images} has images of {len(classes)} classes"
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "calibration").mkdir()
        for file in files[::EVERY]:
            shutil.copyfile(file, place / "calibration" / file.name)
        with torch.inference_mode(False):
            about = About(False, AXES, parameter_count(network))
            write_onnx(trained, place / "float.onnx", config_of(trained), about, fixed=False)
        made = quantise(trained, place / "float.onnx", place / "calibration", None, False, most=100)
        paths = {FORMS[1]: place / "float.onnx", **{f"int8 {each.way}": each.path for each in made}}
        runs: dict[str, Any] = {FORMS[0]: network, **{form: load_exported(path) for form, path in paths.items()}}
        read = trained.spec.kind.reader(trained.config, trained.spec.shape)
        counted = [file for k, file in enumerate(files) if k % EVERY]
        answers: dict[str, list[int]] = {form: [] for form in FORMS}
        for start in range(0, len(counted), 25):
            x = torch.stack([read(file) for file in counted[start : start + 25]])
            for form in FORMS:
                answers[form] += runs[form](x).argmax(1).tolist()
        sizes = {form: path.stat().st_size for form, path in paths.items()}
    truth = [classes.index(file.parent.name) for file in counted]
    return [
        {
            "network": name,
            "form": form,
            "top1": f"{100 * same(given, truth) / len(truth):.2f}",
            "same": same(given, answers[FORMS[0]]),
            "n": len(truth),
            "calibrated": len(files[::EVERY][::2]),
            "megabytes": f"{sizes[form] / 1e6:.2f}" if form in sizes else "",
        }
        for form, given in answers.items()
    ]


def same(given: Sequence[int], others: Sequence[int]) -> int:
    """How many are equal."""
    return sum(a == b for a, b in zip(given, others, strict=True))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows of the file as Markdown, a line a network."""
    lines = [f"| top-1, % (answers that stay; MB) | {' | '.join(FORMS)} |", "|---" * (1 + len(FORMS)) + "|"]
    for name in dict.fromkeys(row["network"] for row in rows):
        own = {row["form"]: row for row in rows if row["network"] == name}
        cells = [f"{own[FORMS[0]]['top1']}"]
        cells += [f"{own[form]['top1']} ({own[form]['same']}; {own[form]['megabytes']})" for form in FORMS[1:]]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("mobilenetv2", type=Path, nargs="?")
    asked = parser.parse_args()
    rows: list[Any] = read_rows(TABLE)[1] if TABLE.exists() else []
    packages = ("torch", "timm", "onnxruntime")
    how = f"{', '.join(f'{package} {version(package)}' for package in packages)}, {platform.machine()}"
    with TemporaryDirectory() as folder:
        images = asked.images
        if images.is_file():
            with tarfile.open(images) as archive:
                archive.extractall(folder, filter="data")
            images = Path(folder)
        for name, make in networks(asked.mobilenetv2).items():
            if name not in {row["network"] for row in rows}:
                require_like(TABLE, how)
                rows += measure(name, make(), images)
                write_rows(TABLE, how, rows)
    print(table(read_rows(TABLE)[1]))


if __name__ == "__main__":
    main()
