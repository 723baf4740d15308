"""Curves of a run in a tracker of experiments: TensorBoard, Trackio or Weights & Biases, all by one path.

`tracker = "trackio"` in a recipe sends each epoch's row of metrics.csv there, under the run's name. A run that goes on
goes on there, too; nothing that a tracker does changes what is trained.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

PROJECT = "attention-zoo"
"""Where Trackio and Weights & Biases put runs, unless TRACKIO_PROJECT or WANDB_PROJECT says otherwise."""


class Tracker(Protocol):
    """What a run tells."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """The figures of an epoch, which is the step."""
        ...

    def end(self) -> None:
        """No more will come from this process."""
        ...


class _Board:
    """TensorBoard's files, in RUN/tensorboard."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self) -> None:
        self.writer.close()


class _Trackio:
    """Trackio's data base on this machine, which `trackio show` opens; a Space if TRACKIO_SPACE_ID names one."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.trackio = import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.run = self.trackio.init(
            project, name=_name(directory), config=dict(settings), resume="allow", embed=False, auto_log_gpu=False
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(values), step=step)

    def end(self) -> None:
        self.trackio.finish()


class _Wandb:
    """Weights & Biases; its files in RUN/wandb. WANDB_MODE=offline sends nothing."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.run = import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=directory.name,
            id=_name(directory),
            dir=str(directory),
            config=dict(settings),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _Board,
    "trackio": _Trackio,
    "wandb": _Wandb,
}
"""`tracker` of a recipe, which is also the package that it takes and the extra that installs it."""


def missing(tracker: str) -> str:
    """What to install for a tracker; empty if it is there, or none is wanted."""
    if not tracker or find_spec(tracker):
        return ""
    return f'tracker = {tracker!r} takes a package of that name: pip install "timm-attention-zoo[{tracker}]"'


def _name(directory: Path) -> str:
    """The run's name, with a few letters of where it lies: two directories of one name are two runs."""
    place = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:6]
    return f"{directory.name}-{place}"
