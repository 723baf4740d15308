"""How the kernels are compiled: by numba, once for each type of map, kept on disk for the next process.

Sums may be taken in any order, and a product and a sum may be rounded together; NaN and infinities stay what they are.
Functions that a kernel calls are part of it (`forceinline`): otherwise the process that compiles them and the one that
reads them from the disk choose among several copies of such a function, and round differently.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache

OPTIONS = {
    "nopython": True,
    "nogil": True,
    "forceinline": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "nsz", "contract"},
}


logger = logging.getLogger("zoo.attention.kernels")


@cache
def _sources() -> str:
    """A hash of this folder's files: a kernel is made of functions of several."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Cache(FunctionCache):
    """Kept on disk; what cannot be written there, or read, is compiled again by the next process."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """numba would ask for the bytes of what a function closes over, which are others in each process."""
        return sig, codegen.magic_tuple(), _sources()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError):
            found = super().load_overload(sig, target_context)
            # Two processes that wrote at once may have given one file to two types of map.
            return found if found is None or tuple(found.signature.args) == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def compiled(function: Callable[..., Any]) -> Any:
    """The function, compiled when it is first called with new types."""
    found: Any = numba.jit(**OPTIONS)(function)
    with suppress(RuntimeError):  # no folder can be written to, neither beside the source nor in the user's cache
        found._cache = Cache(function)
    return found


class Stopwatch(event.Listener):
    """How many functions were compiled since it was last read, and in how many seconds; what the disk had is not.

    It says when the first begins, as nothing else happens meanwhile.
    """

    def __init__(self) -> None:
        self.count, self.seconds, self.depth, self.began = 0, 0.0, 0, 0.0

    def on_start(self, event: event.Event) -> None:
        if not self.began:
            logger.info("compiling attention kernels for this processor, which takes up to a minute, once")
        if not self.depth:
            self.began = time.monotonic()
        self.depth += 1

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if not self.depth:
            self.count, self.seconds = self.count + 1, self.seconds + time.monotonic() - self.began

    def take(self) -> tuple[int, float]:
        """What it shows; it begins anew."""
        shown = self.count, self.seconds
        self.count, self.seconds = 0, 0.0
        return shown


stopwatch = Stopwatch()
event.register("numba:compile", stopwatch)
