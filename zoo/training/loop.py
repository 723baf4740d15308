"""The loop: epochs, updates, micro-batches. Every choice was made before it (zoo/training/job.py)."""

import difflib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import Tensor, nn

from zoo.data.order import seed_all
from zoo.errors import in_a_line
from zoo.inference import Score, evaluate
from zoo.training.job import Job
from zoo.training.memory import peak_memory_mib
from zoo.training.parameter_groups import parameter_groups, thawing
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.run_directory import Epoch
from zoo.training.schedule import rate_of_step
from zoo.training.state import State
from zoo.training.watch import Watch


def fit(job: Job, state: State, watch: Watch) -> None:
    """Train from where `state` is to the last epoch. Raises Diverged, and Interrupted after a signal."""
    with watch.on_duty(state):
        _run_epochs(job, state, watch)


def _run_epochs(job: Job, state: State, watch: Watch) -> None:
    recipe, updates = job.recipe, job.batches.updates
    rate, thaw, network = rate_of_step(recipe, updates), thawing(state.model, recipe), None
    for epoch in range(len(state.epochs), recipe.epochs):
        if recipe.patience and epoch - (state.best_epoch or epoch) >= recipe.patience:
            break
        thaw(epoch)
        if network is None or epoch == recipe.head_epochs:  # other parameters train than before
            network = job.wrap(state.model)
        watch.begin_epoch()
        micro_batches = job.batches.epoch(epoch, state.step - epoch * updates)
        while update := list(islice(micro_batches, recipe.accumulate)):
            seed_all("step", recipe.seed, state.step, job.world.rank)
            for group in state.optimizer.param_groups:
                group["lr"] = rate(state.step) * group["lr_scale"]
            watch.before_update(state, _backward(job, state, network, update, watch))
            _step(state, recipe)
            watch.after_update(state)
        watch.end_epoch(state)
        _close_epoch(job, state, rate(state.step - 1))
        watch.after_epoch(state)


def _backward(
    job: Job, state: State, network: nn.Module, update: Sequence[tuple[Tensor, Tensor]], watch: Watch
) -> list[Tensor]:
    """Gradients of the micro-batches of an update, added up; their losses, each divided by the number of them."""
    losses = []
    for number, batch in enumerate(update):
        images, targets = job.prepare(*batch, state.step, number)
        watch.see(state, number, images)
        with _without_averaging(network, number + 1 < len(update)), job.autocast():
            loss = job.objective(network(images), targets, images) / job.recipe.accumulate
            state.scaler.scale(loss).backward()
        losses.append(loss.detach())
    return losses


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer of that name over the recipe's parameter groups. Raises RecipeError."""
    groups, known = parameter_groups(model, recipe), [str(name) for name in list_optimizers()]
    if recipe.optimizer.lower().removeprefix("lookahead_") not in known:
        near = difflib.get_close_matches(recipe.optimizer, known, 3) or ["adamw", "sgd", "lamb"]
        raise RecipeError(f"unknown optimizer {recipe.optimizer!r}; {', '.join(near)} are some that timm has")
    try:
        optimizer = create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum)
    except (AssertionError, ImportError, TypeError, ValueError) as error:  # of a package or a GPU that is not there
        raise RecipeError(f"optimizer {recipe.optimizer!r} cannot be used here: {in_a_line(error)}") from error
    if getattr(optimizer, "is_second_order", False):
        raise RecipeError(f"optimizer {recipe.optimizer!r} takes second derivatives, which no run makes; take another")
    return optimizer


def _without_averaging(network: nn.Module, more_to_come: bool) -> AbstractContextManager[Any]:
    """Gradients are averaged over the processes with the last micro-batch of an update only."""
    return network.no_sync() if more_to_come and hasattr(network, "no_sync") else nullcontext()  # pyright: ignore


def _step(state: State, recipe: Recipe) -> None:
    """One step of the optimizer and of the moving average."""
    if recipe.clip_grad:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_grad)
    seed_all("optimizer", recipe.seed, state.step)  # what it draws (Kron) must be the same in all processes
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema:
        state.ema.update(state.model, state.step)
    state.step += 1


def _close_epoch(job: Job, state: State, lr: float) -> None:
    """Evaluate, add the row of metrics.csv, and keep the weights if the epoch is the best and one is to be picked."""
    started, updates = time.monotonic(), job.batches.updates
    score = state.score = score_part(job, state, job.data.val)
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


def score_part(job: Job, state: State, part: Any) -> Score:
    """The score of the network that is judged, on a held-out part; the same in every process."""
    job.world.share_buffers(state.judged)
    return evaluate(state.judged, job.held_out(part), job.world, job.autocast)
