"""Files and folders that appear whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside its place, and rename it: neither a crash nor a full disk leaves half.

    A file that was there is replaced; a folder must be new. Raises OSError.
    """
    beside = path.with_name(f".{path.name}.new")
    _remove(beside)  # of a process that was killed
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
