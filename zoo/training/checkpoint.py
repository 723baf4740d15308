"""The checkpoints of a run, each named by its step and by a hash of its content."""

import hashlib
import io
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from zoo.errors import UserError
from zoo.files import write_whole

KEPT = 2
"""The newest, and the one before it in case the newest is damaged or leads to a loss that is not finite."""
NOT_FINITE = "not_finite.pt"
"""Beside the checkpoints' folder: the state in which a loss was not finite, to look at."""


PARTS = {"model", "optimizer", "step", "epochs"}
"""What every checkpoint holds, among other things."""


class CheckpointError(UserError, ValueError):
    """A file that is called as a checkpoint and holds none, or another run's."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is no checkpoint of this run; remove it, and the run goes on from the one before it")


log = logging.getLogger(__name__)


def save_checkpoint(directory: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (tensors and plain values) as the checkpoint of `step`, and remove all but the newest ones."""
    directory.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    path = directory / f"{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    write_whole(path, lambda beside: beside.write_bytes(content))
    for old in checkpoints(directory)[KEPT:]:
        old.unlink()
    return path


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoint files of a directory, newest first."""
    return sorted(directory.glob("[0-9]*-*.pt"), reverse=True)


def step_of(path: Path) -> int:
    """The updates after which a checkpoint was made."""
    return int(path.name.partition("-")[0])


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None. A damaged one is passed over with a warning.

    Raises CheckpointError for one that is whole and none of a run.
    """
    for path in checkpoints(directory):
        content = path.read_bytes()
        if path.stem.partition("-")[2] == hashlib.sha256(content).hexdigest()[:16]:
            return _load(path, content)
        log.warning("%s is damaged; going on from the checkpoint before it", path)
    return None


def _load(path: Path, content: bytes) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are then refused
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling meets in a file that is none, can be anything
        raise CheckpointError(path) from error
    if not isinstance(state, dict) or not state.keys() >= PARTS:
        raise CheckpointError(path)
    return state


def remove_checkpoints(run: Path) -> None:
    """Remove what a run needs no more whose model is there."""
    shutil.rmtree(run / "checkpoint", ignore_errors=True)
    (run / NOT_FINITE).unlink(missing_ok=True)
