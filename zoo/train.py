"""Train any timm model by a recipe, and leave a run directory.

    RUN/recipe.toml      the recipe, every field resolved
    RUN/metrics.csv      one row an epoch, accuracies in percent
    RUN/checkpoint/      best.safetensors and last.safetensors, the weights of those epochs
    RUN/model/           the last epoch's model in timm's local-dir format, with a model card
    RUN/report.html      the curves and the result

The last epoch is the result, not the best one: picking an epoch by the held-out images would flatter it.
"""

import csv
import difflib
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.data import create_loader, resolve_data_config
from timm.models import PretrainedCfg, save_for_hf
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, random_seed
from torch import nn
from tqdm import tqdm

from zoo.data import Data, DataError, open_data
from zoo.evaluate import Score, evaluate
from zoo.recipe import Recipe, RecipeError, dump_recipe
from zoo.report import model_card, report_page


@dataclass(frozen=True)
class Epoch:
    """A row of metrics.csv."""

    epoch: int
    lr: float
    """Of the epoch's last step."""
    train_loss: float
    val_loss: float
    val_top1: float
    val_top5: float
    images_per_second: float
    """Training images, without the evaluation."""
    seconds: float
    """Training and evaluation."""


@dataclass(frozen=True)
class Run:
    """What a training left behind."""

    directory: Path
    score: Score
    epochs: tuple[Epoch, ...]


def train(recipe: Recipe, directory: str | Path) -> Run:
    """Train by `recipe` and write the run to `directory`, which must be new or empty.

    Nothing is written before the first epoch is through, so a mistake in the data or the recipe leaves nothing.
    Raises RecipeError, DataError, or FloatingPointError when the loss is no longer finite.
    """
    directory = _claim(Path(directory))
    random_seed(recipe.seed)
    data = open_data(recipe.data, recipe.val_fraction)
    device = _device(recipe.device)
    model = _model(recipe, data).to(device)
    config = resolve_data_config({"img_size": recipe.image_size or None}, model=model)
    train_loader, val_loader = _loaders(recipe, data, config, device)
    optimizer = _optimizer(recipe, model)
    ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    judged: nn.Module = ema.module if ema else model

    steps = len(train_loader)
    rate = _schedule(recipe, steps)
    # A bar with the time left on a terminal, a line an epoch in a log.
    progress = tqdm(total=recipe.epochs * steps, unit="step", dynamic_ncols=True, desc=recipe.model, disable=None)
    history: list[Epoch] = []
    scores: list[Score] = []
    best = -1.0
    for epoch in range(recipe.epochs):
        start, loss_sum, lr = time.perf_counter(), torch.zeros((), device=device), 0.0
        model.train()
        for step, (images, labels) in enumerate(train_loader, epoch * steps):
            lr = rate(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if ema:
                ema.update(model, step)
            loss_sum += loss.detach()
            progress.update()
        train_loss, trained = loss_sum.item() / steps, time.perf_counter() - start
        if not math.isfinite(train_loss):
            progress.close()
            raise FloatingPointError(
                f"the loss is {train_loss} in epoch {epoch + 1}; lower lr={recipe.lr} or raise warmup_epochs"
            )
        scores.append(score := evaluate(judged, val_loader))
        speed, seconds = steps * recipe.batch_size / trained, time.perf_counter() - start
        history.append(Epoch(epoch + 1, lr, train_loss, score.loss, score.top1, score.top5, speed, seconds))
        news = f"loss {train_loss:.3f}, top-1 {score.top1:.2f} %, {speed:.0f} img/s"
        progress.set_postfix_str(news)
        if progress.disable:
            print(f"epoch {epoch + 1}/{recipe.epochs}: {news}", file=sys.stderr, flush=True)
        names = ["last", "best"] if score.top1 > best else ["last"]
        best = max(best, score.top1)
        _write_progress(directory, recipe, history, dict.fromkeys(names, _weights(judged)))
    progress.close()

    _save_model(directory, judged, recipe, data, config, history)
    return Run(directory, scores[-1], tuple(history))


def _claim(directory: Path) -> Path:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RecipeError(f"{directory} is there already; give another directory with --out, or remove it")
    parent = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise RecipeError(f"cannot write to {parent}; give another directory with --out")
    return directory


def _device(name: str) -> torch.device:
    if not name:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None


def _model(recipe: Recipe, data: Data) -> nn.Module:
    name = recipe.model.split(".")[0]
    if ":" not in recipe.model and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`zoo list` prints the zoo's, timm.list_models() all"
        raise RecipeError(f"unknown model {recipe.model!r}; {hint}")
    if recipe.weights and not Path(recipe.weights).is_file():
        raise RecipeError(f"there is no file of weights {recipe.weights}")
    options: dict[str, Any] = {"attn_kwargs": recipe.attn_kwargs or None, "drop_path_rate": recipe.drop_path or None}
    if recipe.weights:
        options["pretrained_cfg_overlay"] = {"file": recipe.weights}
    started = recipe.pretrained or bool(recipe.weights)
    try:
        return timm.create_model(recipe.model, started, num_classes=len(data.classes), **options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{recipe.model}: {error}") from None


def _loaders(recipe: Recipe, data: Data, config: dict[str, Any], device: torch.device) -> tuple[Any, Any]:
    if len(data.train) < recipe.batch_size:
        raise DataError(f"batch_size {recipe.batch_size} is more than the {len(data.train)} training images; lower it")
    common = {
        "batch_size": recipe.batch_size,
        "num_workers": recipe.workers,
        "persistent_workers": recipe.workers > 0,
        "pin_memory": device.type == "cuda",
        "device": device,
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std")},
    }
    augment = {"scale": (recipe.crop_scale, 1.0), "hflip": recipe.hflip, "color_jitter": recipe.color_jitter or None}
    if recipe.crop_scale == 1:
        augment |= {"ratio": (1.0, 1.0)}
    train_loader = create_loader(data.train, is_training=True, **augment, **common)  # pyright: ignore
    val_loader = create_loader(data.val, crop_pct=config["crop_pct"], **common)  # pyright: ignore
    return train_loader, val_loader


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    try:
        return create_optimizer_v2(
            model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
    except ValueError as error:
        raise RecipeError(f"unknown optimizer {recipe.optimizer!r}; adamw, sgd and lamb are common") from error


def _schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Learning rate of a step: linear warm-up from 0, then a cosine to `min_lr` at the last step."""
    warmup, total = round(recipe.warmup_epochs * steps), recipe.epochs * steps

    def rate(step: int) -> float:
        if step < warmup:
            return recipe.lr * (step + 1) / warmup
        share = (step - warmup) / max(1, total - warmup)
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * share)) / 2

    return rate


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}


def _write_progress(
    directory: Path, recipe: Recipe, history: list[Epoch], weights: dict[str, dict[str, torch.Tensor]]
) -> None:
    (directory / "checkpoint").mkdir(parents=True, exist_ok=True)
    _replace(directory / "recipe.toml", lambda path: path.write_text(dump_recipe(recipe), encoding="utf-8"))
    _replace(directory / "metrics.csv", lambda path: _write_metrics(path, history))
    for name, tensors in weights.items():
        _replace(directory / "checkpoint" / f"{name}.safetensors", lambda path, t=tensors: save_file(t, path))


def _write_metrics(path: Path, history: list[Epoch]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Epoch)])
        writer.writerows(
            [f"{value:.6g}" if isinstance(value, float) else value for value in astuple(e)] for e in history
        )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and rename it, so that a crash never leaves half a file."""
    beside = path.with_name(f".{path.name}.new")
    write(beside)
    beside.replace(path)


def _save_model(
    directory: Path, model: Any, recipe: Recipe, data: Data, config: dict[str, Any], history: list[Epoch]
) -> None:
    """RUN/model in timm's format, and the report; the folder appears whole."""
    # The weights are this run's, so what timm knows of the ones it started from does not describe them.
    kept = {key: model.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    seen = {key: config[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std")}
    labels = {"num_classes": len(data.classes), "label_names": data.classes}
    model.pretrained_cfg = PretrainedCfg(architecture=recipe.model.split(".")[0], **kept, **seen, **labels).to_dict()
    beside = directory / ".model.new"
    facts = {"label_names": list(data.classes), "zoo": {"recipe": asdict(replace(recipe, device=""))}}
    save_for_hf(model, str(beside), model_config=facts, safe_serialization=True, data_config=config)
    card = model_card(recipe, data.classes, data.split, len(data.val), history[-1].val_top1)
    (beside / "README.md").write_text(card, encoding="utf-8")
    beside.rename(directory / "model")
    page = report_page(recipe, [asdict(epoch) for epoch in history], data.split)
    _replace(directory / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
