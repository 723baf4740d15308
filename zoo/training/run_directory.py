"""What a training leaves behind.

RUN/recipe.toml      the recipe, every field resolved, below notes of what changed when the run went on
RUN/metrics.csv      one row an epoch, accuracies in percent
RUN/split.csv        path, label, split and size of every image that is a file; a data set by itself
RUN/train_batch0.jpg the first images that the network was shown, as it was shown them
RUN/checkpoint/      where to go on from after an interruption; gone once model/ is there, without keep_checkpoints
RUN/model/           the trained model in timm's local-dir format
RUN/lock             while a process trains, and after it was killed (zoo/training/owner.py)
RUN/not_finite.pt    the state in which a loss was not finite; gone once model/ is there

The command line adds the model card, RUN/model/README.md, RUN/report.html and pictures beside it (zoo/report/page.py).
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, save_for_hf
from torch import Tensor

from zoo.data import Data
from zoo.data.listing import write_listing
from zoo.data.sheet import denormalised, sheet
from zoo.files import write_whole
from zoo.hardware import at_work
from zoo.inference import Score
from zoo.training.job import Job
from zoo.training.recipe import Recipe
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
    kept_epoch: int
    """Whose weights these are, counted from 1."""
    kept: str
    """The same in words."""


def write_progress(directory: Path, recipe: Recipe, data: Data, epochs: list[Epoch]) -> None:
    """Write recipe.toml, split.csv and metrics.csv as they stand."""
    write_recipe(directory, recipe)
    if not (directory / "split.csv").exists() and (rows := data.listing):
        write_whole(directory / "split.csv", lambda path: write_listing(path, rows))
    names = [f.name for f in fields(Epoch)]
    numbers = [[f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch)] for epoch in epochs]
    write_whole(directory / "metrics.csv", lambda path: _write_csv(path, names, numbers))


def write_recipe(directory: Path, recipe: Recipe, note: str = "") -> None:
    """Write recipe.toml below the notes that are there, and below one more if it is new."""
    notes = dict.fromkeys([*read_notes(directory), *([note] if note else [])])
    text = "".join(f"# {line}\n" for line in notes) + dump_recipe(recipe)
    write_whole(directory / "recipe.toml", lambda path: path.write_text(text, encoding="utf-8"))


def read_notes(directory: Path) -> list[str]:
    """What changed when the run went on, a line each: the comments at the head of its recipe.toml."""
    path = directory / "recipe.toml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), lines)]


def write_first_batch(directory: Path, images: Tensor, config: Mapping[str, Any]) -> None:
    """Write train_batch0.jpg, at most 16 of the images (B, C, H, W), which are normalised as `config` says."""
    whole = sheet(denormalised(images[:16], config))
    write_whole(directory / "train_batch0.jpg", lambda path: whole.save(path, "JPEG", quality=90))


def add_facts(directory: Path, **facts: Any) -> None:
    """Say more in config.json of a run that is complete, beside `recipe` and `result`."""
    path = directory / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["zoo"] |= facts
    text = json.dumps(config, indent=2) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


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
        "kept_epoch": outcome.kept_epoch,
        "seed": recipe.seed,
        "seconds": round(sum(epoch.seconds for epoch in outcome.epochs), 1),
        "images_per_second": round(last.images_per_second, 1),
        "hardware": at_work(device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": date.today().isoformat(),
    }


def kept_words(result: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Which epoch's weights a run kept: `last epoch`, or `epoch 5 of 8, the best ...; stopped early, of 20 planned`.

    `result` and `recipe` are those of config.json; a run made before does not say which epoch it picked.
    """
    planned = recipe.get("epochs", 0)
    trained = result.get("epochs", planned)
    words = "last epoch"
    if recipe.get("patience", 0):
        kept = f"epoch {result['kept_epoch']} of {trained}" if "kept_epoch" in result else f"one of {trained} epochs"
        words = f"{kept}, the best on the validation part"
    return words + (f"; stopped early, {planned} epochs were planned" if trained < planned else "")


def read_result(directory: Path) -> dict[str, Any]:
    """The facts of `result_facts`, of a run that is complete."""
    return read_facts(directory)["result"]


def read_facts(directory: Path) -> dict[str, Any]:
    """What config.json says of a run that is complete: `recipe`, `result` and more."""
    return json.loads((directory / "model" / "config.json").read_text(encoding="utf-8"))["zoo"]


def save_model(model: Any, outcome: Outcome, job: Job) -> None:
    """Write RUN/model in timm's format; the folder appears whole."""
    recipe, data, config = job.recipe, job.data, job.config
    model.to(memory_format=torch.contiguous_format)  # safetensors wants it
    # The weights are this run's, so what timm knows of the ones it started from does not describe them.
    kept = {key: model.pretrained_cfg.get(key) for key in ("first_conv", "classifier", "fixed_input_size")}
    seen = {key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")}
    labels = {"num_classes": len(data.classes), "label_names": data.classes}
    architecture = model.pretrained_cfg["architecture"]  # the recipe may name a folder or a repository
    model.pretrained_cfg = PretrainedCfg(architecture=architecture, **kept, **seen, **labels).to_dict()
    facts: dict[str, Any] = {
        "recipe": asdict(replace(recipe, device="")),
        "result": result_facts(outcome, recipe, job.world.device),
        "digest": data.digest,
    }
    if notes := read_notes(outcome.directory):
        facts["result"]["changes"] = notes
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
