"""What goes on beside training, update by update: losses looked at, checkpoints kept, signals heeded, progress told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from zoo.errors import Interrupted
from zoo.training.agreement import GO_ON, STOP, Agreement
from zoo.training.checkpoint import NOT_FINITE
from zoo.training.job import Job
from zoo.training.keeper import Keeper
from zoo.training.losses import Diverged, Losses, NotFinite, require_finite
from zoo.training.progress import Progress
from zoo.training.run_directory import write_first_batch
from zoo.training.state import State


class Watch:
    """Whom the loop tells that an update or an epoch begins or ends."""

    def __init__(self, job: Job, directory: Path, step: int) -> None:
        self.job, self.directory, self.begun = job, directory, step
        self.losses = Losses(job.world, step)
        self.keeper = Keeper(job, directory)
        self.progress = Progress(job, directory, step)
        self.agreement = Agreement(job.world)
        self.started = time.monotonic()

    @contextmanager
    def on_duty(self, state: State) -> Iterator[None]:
        """Listen to signals, and say where to go on from a loss that is not finite. Raises Diverged."""
        with self.agreement.listening():
            try:
                yield
            except NotFinite as error:
                raise Diverged(self._what_to_do(state, error)) from None

    def begin_epoch(self) -> None:
        """Start to sum losses and seconds."""
        self.losses.clear()
        self.started = time.monotonic()

    def see(self, state: State, number: int, images: Tensor) -> None:
        """Keep a picture of the first images that the network is shown, as they are shown to it."""
        if state.step == number == 0 and self.job.world.leads:
            write_first_batch(self.directory, images, self.job.config)

    def before_update(self, state: State, losses: list[Tensor]) -> None:
        """Count the losses of the micro-batches. Raises NotFinite before they spoil the weights."""
        self.losses.add(losses)
        self.losses.look(state.step)

    def after_update(self, state: State) -> None:
        """Save if it is time or if a signal came; after a signal, raise Interrupted."""
        self.progress.after_update()
        if (agreed := self.agreement.after_update(self.keeper.due)) == GO_ON:
            return
        losses, seconds = self.losses.over_processes(state.step - 1), time.monotonic() - self.started
        self.keeper.require_finite(state)
        self.keeper.write_progress(state)
        self.keeper.save(state, losses, seconds)
        if agreed == STOP:
            self.agreement.wait_for_all()
            raise Interrupted(
                f"stopped by a signal and saved after update {state.step}; go on by zoo train --resume {self.directory}"
            )

    def end_epoch(self, state: State) -> None:
        """Hand the sums of the epoch over to the state."""
        state.loss_sum += self.losses.over_processes(state.step - 1)
        state.seconds += time.monotonic() - self.started
        self.progress.measure()

    def after_epoch(self, state: State) -> None:
        """Write the epoch down and tell of it; the first epoch and those when it is time leave a checkpoint."""
        require_finite(state.epochs[-1].val_loss)
        self.keeper.require_finite(state)
        if not self.job.world.leads:
            return
        self.keeper.write_progress(state)
        if self.keeper.due or not self.keeper.has_checkpoint:
            self.keeper.save(state)
        self.progress.after_epoch(state.epochs[-1])

    def _what_to_do(self, state: State, what: NotFinite) -> str:
        recipe, epoch = self.job.recipe, (max(1, state.step) - 1) // self.job.batches.updates + 1
        step = self.keeper.give_up(state, self.losses.good)
        lower = f"lr={recipe.lr / 10:g}"
        if recipe.min_lr > recipe.lr / 10:
            lower += f" --set min_lr={recipe.min_lr / 10:g}"
        where = f"update {step}" if step else "the beginning"
        if step and step == self.begun:
            where += f" once more, and zoo train {self.directory / 'recipe.toml'} begins anew"
        return (
            f"{what} is not finite after {state.step} updates (epoch {epoch}), state in "
            f"{self.directory / NOT_FINITE}; zoo train --resume {self.directory} --set {lower} goes on from {where} "
            "(warmup_epochs and clip_grad help, too)"
        )
