"""Train any timm model by a recipe, on one process or on all that torchrun started.

The last epoch is the result, not the best one: picking an epoch by the held-out images would flatter it. With
`patience` an epoch is picked, by the validation part, and the result comes from the test part if there is one.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data.order import seed_all
from zoo.files import write_whole
from zoo.inference.evaluation import Score, evaluate
from zoo.processes import GO_ON, STOP, Agreement, join_world, synchronise_batch_norms
from zoo.training.checkpoint import Interrupted, checkpoints, load_checkpoint, save_checkpoint
from zoo.training.job import Job, create_model, make_job, memory_layout, open_training_data, pick_device
from zoo.training.parameter_groups import parameter_groups, thaw
from zoo.training.recipe import Recipe, RecipeError, load_recipe
from zoo.training.run_directory import Epoch, Run, claim, peak_memory_mib, read_result, save_model, write_progress
from zoo.training.schedule import rate_of_step

FIXED = ("model", "data", "num_classes", "attn_kwargs", "batch_size", "image_size", "val_fraction", "split_seed")
"""What a resumed run cannot change: its place in the data and its weights' shapes depend on it."""
PLAIN = ("step", "loss_sum", "seconds", "best", "best_epoch")
"""Fields of the state that a checkpoint holds as they are."""
LOOKS = 50
"""Updates between looks at the loss on an accelerator, where each look waits for it."""


@dataclass
class State:
    """What training changes, and all that a checkpoint holds."""

    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    """Updates made."""
    loss_sum: float = 0.0
    """Over this epoch's updates so far, mean over the processes."""
    seconds: float = 0.0
    """Of training in this epoch so far."""
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the epoch that the validation part likes best; empty unless an epoch is picked."""
    best_epoch: int = 0
    """Its number, counted from 1."""
    score: Score | None = None
    """Of the last epoch, on the validation part; not in a checkpoint, as it can be measured again."""

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"ema": self.ema.module} if self.ema else {})

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and saved."""
        return self.ema.module if self.ema else self.model

    def dump(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            **{name: getattr(self, name) for name in PLAIN},
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }

    def restore(self, dumped: dict[str, Any]) -> None:
        """Go back to what `dump` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(dumped[name])
        for name in PLAIN:
            setattr(self, name, dumped[name])
        self.epochs = [Epoch(**epoch) for epoch in dumped["epochs"]]


def train(recipe: Recipe, directory: str | Path) -> Run:
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


def resume(directory: str | Path, overrides: Sequence[str] = ()) -> Run:
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
    written = directory / "recipe.toml"
    return written.is_file() and load_recipe(written) == recipe and not (directory / "model").exists()


def _run(recipe: Recipe, directory: Path, saved: dict[str, Any] | None) -> Run:
    with join_world(pick_device(recipe.device)) as world:
        seed_all("start", recipe.seed)
        data = open_training_data(recipe, world)
        model = create_model(recipe, len(data.classes))
        if recipe.sync_bn:
            model = synchronise_batch_norms(model, world)
        model = model.to(world.device, memory_format=memory_layout(recipe, model))  # pyright: ignore
        job = make_job(recipe, data, model, world)
        ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.amp == "fp16")
        state = State(model, ema, make_optimizer(model, recipe), scaler)
        if saved:
            state.restore(saved)
        watch = Watch(job, directory, state.step)
        with watch.agreement.listening():
            fit(job, state, watch)
        return _finish(job, state, directory)


def fit(job: Job, state: State, watch: "Watch") -> None:
    """Train from where `state` is to the last epoch."""
    recipe, updates = job.recipe, job.batches.updates
    rate, network = rate_of_step(recipe, updates), None
    for epoch in range(len(state.epochs), recipe.epochs):
        if recipe.patience and epoch - (state.best_epoch or epoch) >= recipe.patience:
            break
        thaw(state.model, recipe, epoch)
        if network is None or epoch == recipe.head_epochs:  # other parameters train than before
            network = job.wrap(state.model)
        watch.begin_epoch()
        micro_batches = job.batches.epoch(epoch, state.step - epoch * updates)
        while update := list(islice(micro_batches, recipe.accumulate)):
            seed_all("step", recipe.seed, state.step, job.world.rank)
            for group in state.optimizer.param_groups:
                group["lr"] = rate(state.step) * group["lr_scale"]
            for number, batch in enumerate(update):
                images, targets = job.prepare(*batch, state.step, number)
                with _only_here(network, number + 1 < recipe.accumulate), job.autocast():
                    loss = job.objective(network(images), targets, images) / recipe.accumulate
                    state.scaler.scale(loss).backward()
                watch.losses += loss.detach()
            watch.look_at_loss(state)
            _update(state, recipe)
            watch.after_update(state)
        watch.end_epoch(state)
        _close_epoch(job, state, rate(state.step - 1))
        watch.after_epoch(state)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer of that name over the recipe's parameter groups. Raises RecipeError."""
    groups = parameter_groups(model, recipe)
    try:
        return create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum)
    except ValueError as error:
        raise RecipeError(f"unknown optimizer {recipe.optimizer!r}; adamw, sgd and lamb are common") from error


def _only_here(network: nn.Module, more_to_come: bool) -> AbstractContextManager[Any]:
    """Gradients are averaged over the processes with the last micro-batch of an update only."""
    return network.no_sync() if more_to_come and hasattr(network, "no_sync") else nullcontext()  # pyright: ignore


def _update(state: State, recipe: Recipe) -> None:
    """One step of the optimizer and of the moving average."""
    if recipe.clip_grad:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema:
        state.ema.update(state.model, state.step)
    state.step += 1


class Watch:
    """What goes on beside training: the loss is looked at, checkpoints are written, signals heeded, progress told."""

    def __init__(self, job: Job, directory: Path, step: int) -> None:
        self.job, self.directory, self.leads = job, directory, job.world.leads
        self.agreement = Agreement(job.world)
        self.every = 1 if job.world.device.type == "cpu" and job.world.size == 1 else LOOKS
        self.losses = torch.zeros((), device=job.world.device)
        self.saved = self.started = time.monotonic()
        self.log_epoch = _tensorboard(directory) if job.recipe.tensorboard and self.leads else None
        # A bar with the time left on a terminal; elsewhere a line an epoch.
        self.progress = tqdm(
            total=job.recipe.epochs * job.batches.updates * job.recipe.batch_size,
            initial=step * job.recipe.batch_size,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            desc=job.recipe.model,
            disable=None if self.leads else True,
        )

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint; only the leading process says so."""
        return self.leads and time.monotonic() - self.saved >= 60 * self.job.recipe.checkpoint_minutes

    def begin_epoch(self) -> None:
        """Start to sum losses and seconds."""
        self.losses.zero_()
        self.started = time.monotonic()

    def look_at_loss(self, state: State) -> None:
        """Stop before an update with a loss that is not finite, or soon after it where each look has to wait."""
        if state.step % self.every == 0 and not math.isfinite(self.losses.item()):
            self._stop_not_finite(state)

    def after_update(self, state: State) -> None:
        """Save if it is time or if a signal came; after a signal, raise Interrupted."""
        self.progress.update(self.job.recipe.batch_size)
        if (agreed := self.agreement.after_update(self.due)) == GO_ON:
            return
        losses, seconds = self._mean_losses(state), time.monotonic() - self.started
        if self.leads:
            write_progress(self.directory, self.job.recipe, self.job.data, state.epochs)
            dumped = state.dump()
            dumped["loss_sum"] += losses
            dumped["seconds"] += seconds
            self._save(state.step, dumped)
        if agreed == STOP:
            self.progress.close()
            raise Interrupted(
                f"stopped by a signal and saved after update {state.step}; go on by zoo train --resume {self.directory}"
            )

    def end_epoch(self, state: State) -> None:
        """Hand the sums of the epoch over to the state."""
        state.loss_sum += self._mean_losses(state)
        state.seconds += time.monotonic() - self.started

    def after_epoch(self, state: State) -> None:
        """Write the epoch down and tell of it; the first epoch and those when it is time leave a checkpoint."""
        if not math.isfinite(state.epochs[-1].val_loss):
            self._stop_not_finite(state)
        if not self.leads:
            return
        write_progress(self.directory, self.job.recipe, self.job.data, state.epochs)
        if self.due or not checkpoints(self.directory / "checkpoint"):
            self._save(state.step, state.dump())
        if self.log_epoch:
            self.log_epoch(state.epochs[-1])
        row = state.epochs[-1]
        news = f"loss {row.train_loss:.3f}, top-1 {row.val_top1:.2f} %, {row.images_per_second:.0f} img/s"
        self.progress.set_postfix_str(news)
        if self.progress.disable:
            print(f"epoch {row.epoch}/{self.job.recipe.epochs}: {news}", file=sys.stderr, flush=True)

    def _mean_losses(self, state: State) -> float:
        """Sum of this process's losses since the epoch began or was resumed, mean over the processes."""
        total = (self.job.world.sum(self.losses) / self.job.world.size).item()
        if not math.isfinite(total):
            self._stop_not_finite(state)
        return total

    def _save(self, step: int, dumped: dict[str, Any]) -> None:
        save_checkpoint(self.directory / "checkpoint", step, dumped)
        self.saved = time.monotonic()

    def _stop_not_finite(self, state: State) -> NoReturn:
        """Save the state for a post-mortem, apart from the checkpoints, and say where to go on."""
        self.progress.close()
        recipe, epoch = self.job.recipe, (max(1, state.step) - 1) // self.job.batches.updates + 1
        if self.leads:
            write_progress(self.directory, recipe, self.job.data, state.epochs)
            write_whole(self.directory / "not_finite.pt", lambda path: torch.save(state.dump(), path))
        there = checkpoints(self.directory / "checkpoint")
        retry = f"--resume {self.directory}" if there else "the recipe again"
        raise FloatingPointError(
            f"the loss is not finite after {state.step} updates (epoch {epoch}), state in "
            f"{self.directory / 'not_finite.pt'}; lower lr, raise warmup_epochs or set clip_grad: zoo train {retry} "
            f"--set lr={recipe.lr / 10:g}"
        )


def _close_epoch(job: Job, state: State, lr: float) -> None:
    """Evaluate, add the row of metrics.csv, and keep the weights if the epoch is the best and one is to be picked."""
    started, updates = time.monotonic(), job.batches.updates
    score = state.score = _score(job, state, job.data.val)
    row = Epoch(
        epoch=len(state.epochs) + 1,
        lr=lr,
        train_loss=state.loss_sum / updates,
        val_loss=score.loss,
        val_top1=score.top1,
        val_top5=score.top5,
        images_per_second=updates * job.recipe.batch_size / max(state.seconds, 1e-9),
        seconds=state.seconds + time.monotonic() - started,
        peak_memory_mib=peak_memory_mib(job.world.device),
    )
    state.epochs.append(row)
    state.loss_sum = state.seconds = 0.0
    if job.recipe.patience:
        best = max(state.epochs, key=lambda epoch: (epoch.val_top1, -epoch.val_loss))
        if best is row:
            state.best = {key: value.detach().cpu().clone() for key, value in state.judged.state_dict().items()}
            state.best_epoch = row.epoch


def _score(job: Job, state: State, part: Any) -> Score:
    job.world.share_buffers(state.judged)
    return evaluate(state.judged, job.held_out(part), job.world, job.autocast)


def _finish(job: Job, state: State, directory: Path) -> Run:
    """Measure what was trained, and write the model."""
    data, words, score = job.data, job.data.split, state.score
    if state.best:
        state.judged.load_state_dict(state.best)
        words += "" if data.test is not None else "; the same images chose the epoch"
    if score is None or state.best or data.test is not None:
        score = _score(job, state, data.val if data.test is None else data.test)
    run = Run(directory, score, words, tuple(state.epochs))
    if job.world.leads:
        save_model(state.judged, run, job.recipe, data, job.config, job.world.device)
    return run


def _tensorboard(directory: Path) -> Callable[[Epoch], None]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory / "tensorboard"))

    def log_epoch(row: Epoch) -> None:
        for f, value in zip(fields(Epoch), astuple(row), strict=True):
            writer.add_scalar(f.name, value, row.epoch)
        writer.flush()

    return log_epoch
