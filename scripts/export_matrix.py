"""Every model of the zoo exported to ONNX, loaded again, and held against the network at another batch and size.

    python scripts/export_matrix.py [--format pt2] [--whole] [MODEL ...]

Each network has random weights, with norms as trained networks have them, so that every branch counts. It is traced at
two images of 96 pixels (its own size where that is smaller, or no other is taken; volumes of 16 slices) and run at
three larger ones. Where the network can be built so it has one block a stage, as the exporter does with the next block
what it did with the last; the column `blocks` says so, and --whole has all of them. It writes
scripts/export_matrix.csv, the cheapest models first, and leaves out what is there already.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from attach_matrix import randomise
from measured import read_rows, require_like, write_rows
from timm.data import resolve_data_config

import zoo  # noqa: F401
from zoo.data.input_spec import input_spec
from zoo.errors import UserError
from zoo.export.writing import export
from zoo.inference import Trained
from zoo.models.counts import read_counts
from zoo.models.variants import VARIANTS

SIDE, DEPTH = 96, 16
TABLE = Path(__file__).with_suffix(".csv")


SHORTER: dict[str, dict[str, Any]] = {
    # pattern of a backbone's name: arguments with which it has one block a stage
    "*_cifar": {},
    "*res*": {"layers": (1, 1, 1, 1)},
    "r*d_18": {"layers": (1, 1, 1, 1)},
    "mobilenetv2_*[05]0": {"depth_multiplier": 0.1},
}


def shorter(name: str) -> dict[str, Any]:
    """What makes the model short; empty where it stays whole."""
    backbone = next(variant.backbone for variant in VARIANTS if variant.name == name)
    return next((found for pattern, found in SHORTER.items() if fnmatch(backbone, pattern)), {})


def prepared(name: str, **options: Any) -> Trained:
    """The model with random weights at the size that is traced."""
    torch.manual_seed(0)
    network: Any = timm.create_model(name, **options)
    own = input_spec(network)
    whole = min(own.size[-2:]) <= SIDE or name == "hacnn"
    size = own.size if whole else (*(DEPTH,) * (own.kind.axes - 2), SIDE, SIDE)
    randomise(network, torch.randn(4, own.channels, *size))
    return Trained(name, network.eval(), resolve_data_config({}, model=network), (), size)


def measure(name: str, form: str, whole: bool = False) -> Mapping[str, object]:
    """The model's row of the table."""
    short = {} if whole else shorter(name)
    trained, began = prepared(name, **short), time.process_time()
    row: dict[str, object] = {"model": name, "blocks": "one a stage" if short else "all", "format": form}
    with TemporaryDirectory() as folder:
        try:
            written = export(trained, Path(folder) / f"model.{form}", form)
        except UserError as error:
            return {**row, **dict.fromkeys(MEASURED, ""), "refused": str(error)}
    row |= {"traced": "x".join(map(str, written.traced)), "run_at": "x".join(map(str, written.difference.shape))}
    row |= {"difference": f"{written.difference.largest:.1e}", "largest_logit": f"{written.difference.logit:.3g}"}
    row |= {"share": f"{written.difference.share:.1e}", "free": " ".join(written.free)}
    return {
        **row,
        "megabytes": f"{written.bytes / 1e6:.2f}",
        "seconds": f"{time.process_time() - began:.0f}",
        "refused": "",
    }


MEASURED = ("traced", "run_at", "difference", "largest_logit", "share", "free", "megabytes", "seconds")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows of the file as Markdown, a line an attention and backbone's kind."""
    lines = ["| attention | models | refused | largest difference | of the largest logit | CPU seconds a model |"]
    lines.append("|---" * 6 + "|")
    attention = {variant.name: variant.attention or "none, or its own" for variant in VARIANTS}
    for title in dict.fromkeys(attention.values()):
        own = [row for row in rows if attention[row["model"]] == title]
        kept = [row for row in own if not row["refused"]]
        if not kept:
            continue
        names = {row["model"] for row in own}
        short = len({row["model"] for row in own if row["blocks"] != "all"})
        said = f"{len(names)}{f', {short} of one block a stage' if short else ''}"
        refused = ", ".join(f"`{row['model']}`" for row in own if row["refused"]) or "none"
        apart, share, seconds = (max(float(row[key]) for row in kept) for key in ("difference", "share", "seconds"))
        lines.append(f"| {title} | {said} | {refused} | {apart:.1e} | {share:.1e} | {seconds:.0f} at most |")
    missing = len({*attention} - {row["model"] for row in rows})
    return "\n".join(
        [*lines, "", f"{missing} of {len(attention)} models are not there yet." if missing else "All models."]
    )


def models() -> list[str]:
    """All of the zoo, the cheapest first."""
    return [row.model for row in sorted(read_counts(), key=lambda row: float(row.gmacs))]


def main() -> None:
    """Measure what is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="these alone")
    parser.add_argument("--format", choices=("onnx", "pt2"), default="onnx")
    parser.add_argument("--whole", action="store_true", help="with all blocks")
    asked = parser.parse_args()
    rows: list[Mapping[str, object]] = [*read_rows(TABLE)[1]] if TABLE.exists() else []
    conditions = f"torch {torch.__version__}, timm {timm.__version__}, CPU"
    done = {(row["model"], row["format"]) for row in rows}
    for name in asked.models or models():
        if (name, asked.format) not in done:
            require_like(TABLE, conditions)
            rows.append(measure(name, asked.format, asked.whole))
            print(*rows[-1].values(), flush=True)
            write_rows(TABLE, conditions, rows)


if __name__ == "__main__":
    main()
