"""What a training leaves behind.

RUN/recipe.toml      the recipe, every field resolved
RUN/metrics.csv      one row an epoch, accuracies in percent
RUN/split.csv        path, label and split of every image, where the split was made here; a data set by itself
RUN/checkpoint/      where to go on from after an interruption
RUN/model/           the trained model in timm's local-dir format

The command line adds the model card, RUN/model/README.md, and RUN/report.html.
"""

import csv
import json
import os
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, save_for_hf

from zoo.data import Data
from zoo.files import write_whole
from zoo.inference import Score
from zoo.training.device import hardware
from zoo.training.job import Job
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_recipe


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
class Outcome:
    """What a training measured, and where it left it."""

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


def result_facts(outcome: Outcome, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """What config.json says of the result: what was measured, on what, with which versions."""
    last = outcome.epochs[-1]
    return {
        "top1": outcome.score.top1,
        "top5": outcome.score.top5,
        "macro_f1": outcome.score.macro_f1,
        "n": outcome.score.n,
        "split": outcome.measured_on,
        "epochs": len(outcome.epochs),
        "seed": recipe.seed,
        "seconds": round(sum(epoch.seconds for epoch in outcome.epochs), 1),
        "images_per_second": round(last.images_per_second, 1),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": date.today().isoformat(),
    }


def read_result(directory: Path) -> dict[str, Any]:
    """The facts of `result_facts`, of a run that is complete."""
    return json.loads((directory / "model" / "config.json").read_text(encoding="utf-8"))["zoo"]["result"]


def save_model(model: Any, outcome: Outcome, job: Job) -> None:
    """Write RUN/model in timm's format; the folder appears whole."""
    recipe, data, config = job.recipe, job.data, job.config
    model.to(memory_format=torch.contiguous_format)  # safetensors wants it
    # The weights are this run's, so what timm knows of the ones it started from does not describe them.
    kept = {key: model.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    seen = {key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")}
    labels = {"num_classes": len(data.classes), "label_names": data.classes}
    model.pretrained_cfg = PretrainedCfg(architecture=recipe.model.split(".")[0], **kept, **seen, **labels).to_dict()
    facts = {
        "recipe": asdict(replace(recipe, device="")),
        "result": result_facts(outcome, recipe, job.world.device),
    }
    described: dict[str, Any] = {"label_names": list(data.classes), "zoo": facts}
    attention = {"attn_kwargs": recipe.attn_kwargs} if recipe.attn_kwargs else {}
    if arguments := {**attention, **job.spec.model_args}:
        described["model_args"] = arguments

    def write(folder: Path) -> None:
        save_for_hf(model, str(folder), model_config=described, safe_serialization=True, data_config=config)

    try:
        write_whole(outcome.directory / "model", write)
    except OSError as error:
        raise OSError(f"{error}; make room, then zoo train --resume {outcome.directory}") from error
