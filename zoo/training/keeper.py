"""What a run keeps while it trains: progress in files, checkpoints in time, the state of a training that failed."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from zoo.files import write_whole
from zoo.training.checkpoint import checkpoints, save_checkpoint
from zoo.training.job import Job
from zoo.training.run_directory import write_progress
from zoo.training.state import State


class Keeper:
    """Writes in the leading process alone."""

    def __init__(self, job: Job, directory: Path) -> None:
        self.job, self.directory, self.leads = job, directory, job.world.leads
        self.saved = time.monotonic()

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
        if self.leads:
            write_progress(self.directory, self.job.recipe, self.job.data, state.epochs)

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

    def save_not_finite(self, state: State) -> None:
        """Write the state for a post-mortem, apart from the checkpoints."""
        self.write_progress(state)
        if self.leads:
            write_whole(self.directory / "not_finite.pt", lambda path: torch.save(state.dump(), path))
