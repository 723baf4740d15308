"""Start a run by a recipe, or go on with one, on one process or on all that torchrun started.

The last epoch is the result, not the best one: picking an epoch by the held-out images would flatter it. With
`patience` an epoch is picked, by the validation part, and the result comes from the test part if there is one.
zoo/training/run_directory.py says what is left behind.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch.utils.data import IterableDataset

from zoo.data import Data, Splitting, open_data
from zoo.data.listing import read_listing
from zoo.data.order import seed_all
from zoo.data.record import Record
from zoo.inference.device import pick_device
from zoo.inference.held_out import CHOSE_THE_EPOCH
from zoo.models.switches import attention_switches
from zoo.processes import UNDER_TORCHRUN, World, join_world, synchronise_batch_norms
from zoo.training.checkpoint import CheckpointError, checkpoints, load_checkpoint, remove_checkpoints
from zoo.training.job import Job, make_job, memory_layout
from zoo.training.loop import fit, make_optimizer, score_part
from zoo.training.opening import opening
from zoo.training.owner import owned
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_value, load_recipe
from zoo.training.run_directory import Outcome, kept_words, read_result, save_model, write_recipe
from zoo.training.starting_model import create_model, training_spec
from zoo.training.state import State
from zoo.training.trackers import missing
from zoo.training.watch import Watch

MAY_CHANGE = (
    "epochs",
    "lr",
    "min_lr",
    "schedule",
    "warmup_epochs",
    "decay_epochs",
    "decay_at",
    "decay_rate",
    "clip_grad",
    "workers",
    "device",
    "compile",
    "channels_last",
    "checkpoint_minutes",
    "keep_checkpoints",
    "tracker",
)
"""Fields that a run can go on with another value of, from the next update on. The rest is in its split, in the shapes
of its weights, in the state of its optimizer, or in what it has drawn already."""


class Complete(RecipeError):
    """The run has its model already."""


def train(recipe: Recipe, directory: str | Path) -> Outcome:
    """Train by `recipe` and write the run to `directory`, which must be new or empty.

    From the start on the directory is this run's, and holds its recipe; a mistake in the data or the recipe leaves
    nothing. Under torchrun, a run of the same recipe is gone on with: processes may be started again. Raises
    RecipeError, DataError, Diverged when the loss is no longer finite, and Interrupted after SIGTERM, SIGUSR1 or
    Ctrl-C.
    """
    directory = Path(directory)
    if UNDER_TORCHRUN and (begun := _begun(directory, recipe)):
        return _run(begun, directory, begun)
    return _run(recipe, directory)


def resume(directory: str | Path, overrides: Sequence[str] = ()) -> Outcome:
    """Go on with an interrupted run from its newest whole checkpoint, or from the beginning if it has none.

    The result is that of a run never interrupted. `overrides` are `key=value` texts for what may still be changed.
    Raises what `train` raises, and Complete if nothing is left to do.
    """
    directory = Path(directory)
    if not (directory / "recipe.toml").is_file():
        raise RecipeError(f"{directory} holds no run to resume; start one with zoo train RECIPE --out {directory}")
    recipe, before = (load_recipe(directory / "recipe.toml", texts) for texts in (overrides, ()))
    return _run(recipe, directory, before)


def _changes(recipe: Recipe, before: Mapping[str, Any]) -> dict[str, str]:
    """What a run goes on with in place of what was before, in words by field. Raises RecipeError if it cannot."""
    known = [field.name for field in fields(Recipe) if field.name in before]
    changed = [name for name in known if getattr(recipe, name) != before[name]]
    if fixed := [name for name in changed if name not in MAY_CHANGE]:
        raise RecipeError(
            f"a run cannot go on with another {fixed[0]} ({_shown(before[fixed[0]])} before); start a new one, or "
            f"change only {', '.join(MAY_CHANGE)}"
        )
    return {name: f"{name} = {_shown(getattr(recipe, name))} ({_shown(before[name])} before)" for name in changed}


def _shown(value: Any) -> str:
    return " ".join(dump_value(value).split())


def train_once(directory: Path, make_recipe: Callable[[], Recipe]) -> dict[str, Any]:
    """What a run measured that is made only if it is not there, and gone on with if it was interrupted."""
    if not (directory / "model").exists():
        if (directory / "recipe.toml").exists():
            resume(directory)
        else:
            train(make_recipe(), directory)
    return read_result(directory)


def _begun(directory: Path, recipe: Recipe) -> Recipe | None:
    """The recipe of the run that is there, if it is this one, but for the switches of the attention, now resolved."""
    if not (directory / "recipe.toml").is_file():
        return None
    written = load_recipe(directory / "recipe.toml")
    same = replace(recipe, attn_kwargs={**written.attn_kwargs, **recipe.attn_kwargs}) == written
    return written if same else None


def open_training_data(recipe: Recipe, world: World, before: Record | None = None) -> Data:
    """The data of the recipe, split as the run had it before if it did; says what is skipped. Raises DataError."""
    splitting = Splitting(
        val_fraction=recipe.val_fraction,
        seed=recipe.split_seed,
        keep_test=recipe.patience > 0,
        skip_bad=recipe.on_bad_image == "skip",
        num_classes=recipe.num_classes,
    )
    data = open_data(recipe.data, splitting, before)
    if data.skipped and world.leads:
        shown = ", ".join(data.skipped[:3]) + (", ..." if len(data.skipped) > 3 else "")
        print(f"skipped {len(data.skipped)} images that cannot be read: {shown}", file=sys.stderr)
    return data


def _record(directory: Path, saved: dict[str, Any] | None) -> Record:
    """What the run in this directory knows of its data; nothing if it is new."""
    listed = read_listing(directory / "split.csv") if (directory / "split.csv").is_file() else ()
    said = (saved or {}).get("data", {})
    return Record(listed, **said, from_before=saved is not None and not said)


def _run(recipe: Recipe, directory: Path, before: Recipe | None = None) -> Outcome:
    """`before` is the recipe in the directory, of a run to go on with; a new one begins without."""
    if words := missing(recipe.tracker):
        raise RecipeError(words)
    with join_world(pick_device(recipe.device)) as world, owned(directory, world, None if before else recipe):
        if (directory / "model").exists():
            _tidy(directory, recipe, world)
            raise Complete(f"{directory} is complete already: its model is in {directory / 'model'}")
        saved = load_checkpoint(directory / "checkpoint")
        changes = _changes(recipe, (saved or {}).get("recipe", vars(before or recipe)))
        seed_all("start", recipe.seed)
        data = open_training_data(recipe, world, _record(directory, saved))
        model = create_model(recipe, data.classes)
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
            _restore(state, saved, directory)
        _go_on(job, state, directory, changes)
        watch = Watch(job, directory, state.step)
        if world.leads:
            print(opening(job, state, directory), file=sys.stderr, flush=True)
        with watch.progress.telling():
            fit(job, state, watch)
            watch.progress.measure()
            return _finish(job, state, directory)


def _restore(state: State, saved: dict[str, Any], directory: Path) -> None:
    """Raises CheckpointError for a state that is none of this network and its optimizer."""
    try:
        state.restore(saved)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(checkpoints(directory / "checkpoint")[0]) from error


def _go_on(job: Job, state: State, directory: Path, changes: Mapping[str, str]) -> None:
    """Note in recipe.toml what is other from here on. Raises RecipeError for what the run cannot do any more."""
    if state.step > job.recipe.epochs * job.batches.updates:
        trained = f"{state.step / job.batches.updates:.4g}"
        raise RecipeError(f"epochs = {job.recipe.epochs} is less than the {trained} that the run has trained already")
    if "workers" in changes and isinstance(job.data.train, IterableDataset):
        raise RecipeError("a run on a stream cannot go on with another workers: its order is theirs")
    if changes and job.world.leads:
        note = f"Went on after update {state.step} (epoch {len(state.epochs) + 1}) with {', '.join(changes.values())}."
        write_recipe(directory, job.recipe, note)


def _finish(job: Job, state: State, directory: Path) -> Outcome:
    """Measure what was trained, and write the model."""
    data, words, score = job.data, job.data.split, state.score
    if state.best:
        state.judged.load_state_dict(state.best)
        words += "" if data.test is not None else CHOSE_THE_EPOCH
    if score is None or state.best or data.test is not None:
        score = score_part(job, state, data.val if data.test is None else data.test)
    trained = len(state.epochs)
    kept_epoch = state.best_epoch or trained
    kept = kept_words({"epochs": trained, "kept_epoch": kept_epoch}, vars(job.recipe))
    outcome = Outcome(directory, score, words, tuple(state.epochs), kept_epoch, kept)
    if job.world.leads:
        save_model(state.judged, outcome, job)
    _tidy(directory, job.recipe, job.world)
    return outcome


def _tidy(directory: Path, recipe: Recipe, world: World) -> None:
    """Keep of a complete run what is asked for."""
    if world.leads and not recipe.keep_checkpoints:
        remove_checkpoints(directory)
