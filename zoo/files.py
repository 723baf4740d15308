"""Files and folders that appear whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file or folder beside `path`, then rename it, so that a crash or a full disk leaves no half.

    A file that was there is replaced; a folder must not be there yet. Raises OSError.
    """
    beside = path.with_name(f".{path.name}.new")
    _remove(beside)  # left by a process that was killed
    try:
        write(beside)
        beside.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot write {path}: {reason}; what was there before is untouched") from error
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
