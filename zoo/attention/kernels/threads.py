"""Threads to deal work to: those that PyTorch runs its own operations on, wherever its OpenMP lets others in.

After an operation PyTorch's threads wait for the next in a loop, for milliseconds, and keep their cores. Threads of our
own would share these with them: between eager operations, on two cores, CBAM would take 1.5 times as long.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path

import torch

ENTRIES = "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"
"""What a compiler calls for a parallel loop: GNU's names, which LLVM's and Intel's OpenMP have on Linux, too."""
PROCESS = os.getpid()


@cache
def openmp() -> tuple[int, ...] | None:
    """Addresses of ENTRIES in the OpenMP that PyTorch uses; None where it lacks them, and in a fork.

    A fork has none of its parent's threads, and GNU's OpenMP would wait there for them for good.
    """
    if os.getpid() != PROCESS:
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in ENTRIES)
    except (OSError, AttributeError):
        return None


def pool(threads: int, share: Callable[[int, int], None]) -> None:
    """Call `share(k, threads)` for every k at the same time, on this thread and on some of our own.

    What a part raises is raised when all have ended.
    """
    others = [_executor(threads - 1).submit(share, k, threads) for k in range(1, threads)]
    try:
        share(0, threads)
    finally:
        wait(others)
    for other in others:
        other.result()


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "zoo.attention")


def _forget() -> None:
    _executor.cache_clear()
    openmp.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
