"""What a training leaves behind.

RUN/recipe.toml      the recipe, every field resolved
RUN/metrics.csv      one row an epoch, accuracies in percent
RUN/split.csv        path, label and split of every image, where the split was made here; a data set by itself
RUN/checkpoint/      where to go on from after an interruption
RUN/model/           the trained model in timm's local-dir format, with a model card
RUN/report.html      the curves and the result
"""

import csv
import json
import os
import platform
import sys
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, save_for_hf

from zoo.data import Data
from zoo.files import write_whole
from zoo.inference.evaluation import Score
from zoo.models.count import input_size
from zoo.release.card import model_card
from zoo.report.page import report_page
from zoo.training.recipe import Recipe, RecipeError, dump_recipe


@dataclass(frozen=True)
class Epoch:
    """A row of metrics.csv."""

    epoch: int
    lr: float
    """Of the epoch's last step."""
    train_loss: float
    """Of the training targets, soft ones if the recipe softens them."""
    val_loss: float
    """Cross-entropy, in nats."""
    val_top1: float
    val_top5: float
    images_per_second: float
    """Training images over all processes, without the evaluation."""
    seconds: float
    """Training and evaluation."""
    peak_memory_mib: float
    """Of the accelerator, or of the process where there is none; of the leading process."""


@dataclass(frozen=True)
class Run:
    """What a training left behind."""

    directory: Path
    score: Score
    """On the held-out part that gives the result."""
    measured_on: str
    """That part, in words."""
    epochs: tuple[Epoch, ...]


def claim(directory: Path) -> Path:
    """The directory, which must be new or empty and where files can be written. Raises RecipeError."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RecipeError(
            f"{directory} is there already; give another directory with --out, remove it, or go on with "
            f"zoo train --resume {directory}"
        )
    parent = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise RecipeError(f"cannot write to {parent}; give another directory with --out")
    return directory


def write_progress(directory: Path, recipe: Recipe, data: Data, epochs: list[Epoch]) -> None:
    """Write recipe.toml, split.csv and metrics.csv as they stand."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "recipe.toml", lambda path: path.write_text(dump_recipe(recipe), encoding="utf-8"))
    rows = [*data.listing, *((name, "", "skipped") for name in data.skipped)]
    if rows and not (directory / "split.csv").exists():
        write_whole(directory / "split.csv", lambda path: _write_csv(path, ["path", "label", "split"], rows))
    names = [f.name for f in fields(Epoch)]
    numbers = [[f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch)] for epoch in epochs]
    write_whole(directory / "metrics.csv", lambda path: _write_csv(path, names, numbers))


def _write_csv(path: Path, names: list[str], rows: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def result_facts(run: Run, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """What config.json says of the result: what was measured, on what, with which versions."""
    last = run.epochs[-1]
    return {
        "top1": run.score.top1,
        "top5": run.score.top5,
        "macro_f1": run.score.macro_f1,
        "n": run.score.n,
        "split": run.measured_on,
        "epochs": len(run.epochs),
        "seed": recipe.seed,
        "seconds": round(sum(epoch.seconds for epoch in run.epochs), 1),
        "images_per_second": round(last.images_per_second, 1),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": date.today().isoformat(),
    }


def read_result(directory: Path) -> dict[str, Any]:
    """The facts of `result_facts`, of a run that is complete."""
    return json.loads((directory / "model" / "config.json").read_text(encoding="utf-8"))["zoo"]["result"]


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory used so far, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def save_model(model: Any, run: Run, recipe: Recipe, data: Data, config: dict[str, Any], device: torch.device) -> None:
    """Write RUN/model in timm's format, and the report; the folder appears whole."""
    model.to(memory_format=torch.contiguous_format)  # safetensors wants it
    # The weights are this run's, so what timm knows of the ones it started from does not describe them.
    kept = {key: model.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    seen = {key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")}
    labels = {"num_classes": len(data.classes), "label_names": data.classes}
    model.pretrained_cfg = PretrainedCfg(architecture=recipe.model.split(".")[0], **kept, **seen, **labels).to_dict()
    facts = {"recipe": asdict(replace(recipe, device="")), "result": result_facts(run, recipe, device)}
    card = model_card(recipe, input_size(model), data.classes, run.measured_on, run.score.n, run.score.top1)
    described: dict[str, Any] = {"label_names": list(data.classes), "zoo": facts}
    if hasattr(model, "depth"):
        described["model_args"] = {"depth": model.depth}

    def write(folder: Path) -> None:
        save_for_hf(model, str(folder), model_config=described, safe_serialization=True, data_config=config)
        (folder / "README.md").write_text(card, encoding="utf-8")

    try:
        write_whole(run.directory / "model", write)
    except OSError as error:
        raise OSError(f"{error}; make room, then zoo train --resume {run.directory}") from error
    page = report_page(recipe, [asdict(epoch) for epoch in run.epochs], run.measured_on, run.score.top1, run.score.n)
    write_whole(run.directory / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
