"""Start a run by a recipe, or go on with one, on one process or on all that torchrun started.

The last epoch is the result, not the best one: picking an epoch by the held-out images would flatter it. With
`patience` an epoch is picked, by the validation part, and the result comes from the test part if there is one.
zoo/training/run_directory.py says what is left behind.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3

from zoo.data import Data, Splitting, open_data
from zoo.data.order import seed_all
from zoo.models.switches import attention_switches
from zoo.processes import World, join_world, synchronise_batch_norms
from zoo.training.checkpoint import checkpoints, load_checkpoint
from zoo.training.device import pick_device
from zoo.training.job import Job, make_job, memory_layout
from zoo.training.loop import fit, make_optimizer, score_part
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import load_recipe
from zoo.training.run_directory import Outcome, claim, read_result, save_model
from zoo.training.starting_model import create_model, training_spec
from zoo.training.state import State
from zoo.training.watch import Watch

FIXED = ("model", "data", "num_classes", "attn_kwargs", "batch_size", "image_size", "val_fraction", "split_seed")
"""What a resumed run cannot change: its place in the data and its weights' shapes depend on it."""


def train(recipe: Recipe, directory: str | Path) -> Outcome:
    """Train by `recipe` and write the run to `directory`, which must be new or empty.

    Nothing is written before the first epoch or checkpoint, so a mistake in the data or the recipe leaves nothing.
    Under torchrun, an unfinished run of the same recipe is gone on with: processes may be started again. Raises
    RecipeError, DataError, FloatingPointError when the loss is no longer finite, and Interrupted after SIGTERM or
    SIGUSR1.
    """
    directory = Path(directory)
    if "TORCHELASTIC_RUN_ID" in os.environ and _unfinished(directory, recipe):
        return _run(recipe, directory, load_checkpoint(directory / "checkpoint"))
    return _run(recipe, claim(directory), None)


def resume(directory: str | Path, overrides: Sequence[str] = ()) -> Outcome:
    """Go on with an interrupted run from its newest whole checkpoint; the result is that of a run never interrupted.

    `overrides` are `key=value` texts for what may still be changed. Raises what `train` raises.
    """
    directory = Path(directory)
    if not (directory / "recipe.toml").is_file():
        raise RecipeError(f"{directory} holds no run to resume; start one with zoo train RECIPE --out {directory}")
    recipe, before = (load_recipe(directory / "recipe.toml", texts) for texts in (overrides, ()))
    if changed := [name for name in FIXED if getattr(recipe, name) != getattr(before, name)]:
        raise RecipeError(f"a run cannot go on with another {changed[0]}; start a new one")
    if (directory / "model").exists():
        raise RecipeError(f"{directory} is complete already: its model is in {directory / 'model'}")
    saved = load_checkpoint(directory / "checkpoint")
    if saved is None:
        raise RecipeError(f"{directory} has no whole checkpoint; train anew by {directory / 'recipe.toml'}")
    return _run(recipe, directory, saved)


def train_once(directory: Path, make_recipe: Callable[[], Recipe]) -> dict[str, Any]:
    """What a run measured that is made only if it is not there, and gone on with if it was interrupted."""
    if not (directory / "model").exists():
        if checkpoints(directory / "checkpoint"):
            resume(directory)
        else:
            train(make_recipe(), directory)
    return read_result(directory)


def _unfinished(directory: Path, recipe: Recipe) -> bool:
    if not (directory / "recipe.toml").is_file() or (directory / "model").exists():
        return False
    written = load_recipe(directory / "recipe.toml")  # with more switches of the attention, those that were resolved
    return replace(written, attn_kwargs={**written.attn_kwargs, **recipe.attn_kwargs}) == replace(
        recipe, attn_kwargs=written.attn_kwargs
    )


def open_training_data(recipe: Recipe, world: World) -> Data:
    """The data of the recipe, split; says what was skipped. Raises DataError."""
    splitting = Splitting(
        val_fraction=recipe.val_fraction,
        seed=recipe.split_seed,
        keep_test=recipe.patience > 0,
        skip_bad=recipe.on_bad_image == "skip",
        num_classes=recipe.num_classes,
    )
    data = open_data(recipe.data, splitting)
    if data.skipped and world.leads:
        shown = ", ".join(data.skipped[:3]) + (", ..." if len(data.skipped) > 3 else "")
        print(f"skipped {len(data.skipped)} images that cannot be read: {shown}", file=sys.stderr)
    return data


def _run(recipe: Recipe, directory: Path, saved: dict[str, Any] | None) -> Outcome:
    with join_world(pick_device(recipe.device)) as world:
        seed_all("start", recipe.seed)
        data = open_training_data(recipe, world)
        model = create_model(recipe, len(data.classes))
        switches = attention_switches(model)
        if saved and switches and "neutral" not in recipe.attn_kwargs:
            raise RecipeError(
                f"{directory} was begun before gates were neutral; to go on with it as it is, add neutral = false to "
                "attn_kwargs in its recipe.toml"
            )
        recipe = replace(recipe, attn_kwargs=switches)
        if recipe.sync_bn:
            model: Any = synchronise_batch_norms(model, world)
        model.to(world.device, memory_format=memory_layout(recipe, training_spec(recipe, model)))
        job = make_job(recipe, data, model, world)
        ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.amp == "fp16")
        state = State(model, ema, make_optimizer(model, recipe), scaler)
        if saved:
            state.restore(saved)
        fit(job, state, Watch(job, directory, state.step))
        return _finish(job, state, directory)


def _finish(job: Job, state: State, directory: Path) -> Outcome:
    """Measure what was trained, and write the model."""
    data, words, score = job.data, job.data.split, state.score
    if state.best:
        state.judged.load_state_dict(state.best)
        words += "" if data.test is not None else "; the same images chose the epoch"
    if score is None or state.best or data.test is not None:
        score = score_part(job, state, data.val if data.test is None else data.test)
    outcome = Outcome(directory, score, words, tuple(state.epochs))
    if job.world.leads:
        save_model(state.judged, outcome, job)
    return outcome
