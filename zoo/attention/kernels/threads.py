"""Work dealt to threads: to those that PyTorch runs its own operations on, wherever its OpenMP lets others in.

After an operation PyTorch's threads wait for the next in a loop, for milliseconds, and keep their cores. Threads of our
own would share these with them: between eager operations, on two cores, CBAM would take 1.5 times as long.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

Share = Callable[[int, int], None]
"""Does part `k` of `n`."""
Way = Callable[[int, Share], None]
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PROCESS = os.getpid()


def in_parallel(threads: int, share: Share) -> None:
    """Call `share(k, n)` for every k below n at the same time; n is `threads`, or less where OpenMP has no more.

    What a part raises is raised when all have ended.
    """
    best_way()(threads, share)


def openmp(start: Any, ask: Any, threads: int, share: Share) -> None:
    """On PyTorch's threads, of which this is the first; `start` is what a compiler calls for a parallel loop."""
    raised: list[BaseException] = []

    def body(_: Any) -> None:
        try:
            share(ask.omp_get_thread_num(), ask.omp_get_num_threads())
        except BaseException as error:  # C cannot pass it on, not even a KeyboardInterrupt
            raised.append(error)

    start(BODY(body), None, threads, 0)
    if raised:
        raise raised[0]


def pool(threads: int, share: Share) -> None:
    """On this thread and on some of our own."""
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


@cache
def best_way() -> Way:
    """OpenMP where PyTorch's has GNU's entry, as GNU's, LLVM's and Intel's have on Linux; not in a fork.

    A fork has none of its parent's threads, and GNU's OpenMP would wait there for them for good.
    """
    if os.getpid() != PROCESS:
        return pool
    path = str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
    try:
        start, ask = ctypes.CDLL(path).GOMP_parallel, ctypes.PyDLL(path)
        start.argtypes, start.restype = [BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        ask.omp_get_thread_num()
    except (OSError, AttributeError):
        return pool
    return partial(openmp, start, ask)


def _forget() -> None:
    _executor.cache_clear()
    best_way.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
