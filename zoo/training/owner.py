"""A run directory has one owner at a time: the process that holds the lock on RUN/lock, which its death releases."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.files import is_unfinished, remove_unfinished
from zoo.processes import GRACE, UNDER_TORCHRUN, World
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.run_directory import write_recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl: Any = None

LOCK = "lock"
WAIT = GRACE + 30 if UNDER_TORCHRUN else 0.0
"""Seconds to wait for an owner to leave: processes that torchrun started may have lost it, and are saving."""
_held: set[int] = set()
"""Open files of the locks that this process holds."""


class Taken(RecipeError):
    """Another run is in the directory, or a process trains there."""


@contextmanager
def owned(directory: Path, world: World, new: Recipe | None = None) -> Iterator[None]:
    """Own a run directory, by the leading process; the others wait until it does.

    `new` is the recipe of a run that begins here. The directory is made for it, and recipe.toml written before all
    else, so that the run can be gone on with whatever happens; a run that fails before anything more is there leaves
    nothing. Raises Taken, and RecipeError where nothing can be written.
    """
    with ExitStack() as stack:
        if world.leads:
            if new:
                _require_free(directory)
                stack.enter_context(_made(directory))
            stack.enter_context(_locked(directory))
            for folder in (directory, directory / "checkpoint"):
                remove_unfinished(folder)
            if new:
                _require_free(directory)  # now that nobody else writes
                write_recipe(directory, new)
        world.wait()
        yield


def _require_free(directory: Path) -> None:
    """What a run that was killed before it began leaves, is no run."""
    if not directory.exists():
        return
    if not directory.is_dir() or any(path.name != LOCK and not is_unfinished(path) for path in directory.iterdir()):
        raise Taken(
            f"{directory} is there already; give another directory with --out, remove it, or go on with "
            f"zoo train --resume {directory}"
        )


BEFORE_TRAINING = {"recipe.toml", "train_batch0.jpg"}
"""What is written before the first update."""


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make the directory; take away what was made here, if an error comes before the first update."""
    made = [path for path in (directory, *directory.absolute().parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"cannot make {directory}: {error.strerror}; give another directory with --out") from None
    try:
        yield
    except BaseException:
        if {path.name for path in directory.iterdir()} <= BEFORE_TRAINING:
            for name in BEFORE_TRAINING:
                (directory / name).unlink(missing_ok=True)
            with suppress(OSError):  # another process may have begun there
                for path in made:
                    path.rmdir()
        raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    path = directory / LOCK
    try:
        lock = _lock(path)
    except OSError as error:
        raise RecipeError(f"cannot write to {directory}: {error.strerror}; give another directory with --out") from None
    _held.add(lock)
    try:
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _held.discard(lock)
        os.close(lock)


def _lock(path: Path) -> int:
    """Open and lock the file. Raises Taken, and OSError."""
    until, told = time.monotonic() + WAIT, False
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _others_hold(lock):
            if _is_there(path, lock):
                return lock
            os.close(lock)  # its owner took it away between the two; make another
            continue
        owner = os.read(lock, 200).decode() or "another process"
        os.close(lock)
        if time.monotonic() >= until:
            raise Taken(f"{path.parent} belongs to {owner}, which trains there; wait for it to end, or stop it")
        if not told:
            print(f"waiting for {owner}, which trains in {path.parent}", file=sys.stderr, flush=True)
        told = True
        time.sleep(0.5)


def _others_hold(lock: int) -> bool:
    """Lock the open file, or say that another process has; where nothing can be locked, nobody has."""
    try:
        if fcntl is None:
            raise OSError(None, "not on this system")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        print(f"cannot lock a run ({error.strerror}): a second one in its place would not be noticed", file=sys.stderr)
    return False


def _is_there(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(opened))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """Loader processes live on for seconds when their parent was killed, and would hold its locks for it."""
    for lock in _held:
        os.close(lock)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
