"""Files and folders that appear whole or not at all, and are on the disk when they do."""

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

UNFINISHED = re.compile(r"\..+\.new")
"""Names of what is being written, or was when its writer was killed."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file or folder beside `path`, bring it to the disk, and rename it.

    So neither a crash, nor a full disk, nor another process that writes the same leaves a half. A file that was there
    is replaced; a folder must not be there yet. Raises OSError.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        write(beside)
        _sync(beside)
        beside.replace(path)
        _sync_one(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot write {path}: {reason}; what was there before is untouched") from error
    finally:
        _remove(beside)


def is_unfinished(path: Path) -> bool:
    """Whether this is what `write_whole` was writing when its process was killed, if nobody writes here now."""
    return UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(directory: Path) -> None:
    """Remove what killed processes left in a directory in which nobody else writes now."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if is_unfinished(path):
            _remove(path)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or a folder and all that is in it; a rename alone does not see to that."""
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        _sync_one(each)


def _sync_one(path: Path) -> None:
    """The same for a file, or for the names in a folder where folders can be opened."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    opened = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
