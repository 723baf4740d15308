"""What a run keeps while it trains: progress in files, checkpoints in time, the state of a training that failed."""

import io
import time
from dataclasses import asdict
from pathlib import Path

import torch

from zoo.files import write_whole
from zoo.training.checkpoint import NOT_FINITE, checkpoints, save_checkpoint, step_of
from zoo.training.job import Job
from zoo.training.losses import NotFinite
from zoo.training.run_directory import write_progress
from zoo.training.state import State


class Keeper:
    """Writes in the leading process alone."""

    def __init__(self, job: Job, directory: Path) -> None:
        self.job, self.directory, self.leads = job, directory, job.world.leads
        self.saved = time.monotonic()
        self.rows = -1
        """Of metrics.csv, as this process wrote it."""

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint; only the leading process says so."""
        return self.leads and time.monotonic() - self.saved >= 60 * self.job.recipe.checkpoint_minutes

    @property
    def has_checkpoint(self) -> bool:
        """Whether a run could go on from here."""
        return bool(checkpoints(self.directory / "checkpoint"))

    def write_progress(self, state: State) -> None:
        """recipe.toml, split.csv and metrics.csv as they stand."""
        if self.leads and len(state.epochs) != self.rows:
            write_progress(self.directory, self.job.recipe, self.job.data, state.epochs)
            self.rows = len(state.epochs)

    def require_finite(self, state: State) -> None:
        """Raise NotFinite for weights that are nothing to go on from; all processes ask together."""
        if self.job.world.sum(state.spoiled()).item():
            raise NotFinite("a weight")

    def save(self, state: State, losses: float = 0.0, seconds: float = 0.0) -> None:
        """Write a checkpoint; `losses` and `seconds` are those of the epoch that `state` does not count yet."""
        if self.leads:
            dumped = state.dump()
            dumped["loss_sum"] += losses
            dumped["seconds"] += seconds
            dumped["recipe"] = asdict(self.job.recipe)
            dumped["data"] = {"classes": self.job.data.classes, "digest": self.job.data.digest}
            save_checkpoint(self.directory / "checkpoint", state.step, dumped)
            self.saved = time.monotonic()

    def give_up(self, state: State, good: int) -> int:
        """After a loss that is not finite: write the state to look at, and remove what leads to that loss again.

        `good` is the last update after which the loss was finite: a checkpoint of it is one update from the bad one,
        so it goes if there is one from before. Returns the update that the run can go on from, 0 for the beginning.
        """
        self.write_progress(state)
        found = checkpoints(self.directory / "checkpoint")
        kept = [path for path in found if step_of(path) < good] or [path for path in found if step_of(path) == good]
        if self.leads:
            buffer = io.BytesIO()
            torch.save(state.dump(), buffer)
            write_whole(self.directory / NOT_FINITE, lambda path: path.write_bytes(buffer.getbuffer()))
            for path in found:
                if path not in kept:
                    path.unlink()
        return step_of(kept[0]) if kept else 0
