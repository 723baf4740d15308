"""A map as the passes take it: where its numbers lie, NumPy's view of them, and the images dealt to threads."""

import ctypes
import math
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.attention.kernels import channels_last, contiguous
from zoo.attention.kernels.fork_join import dealt
from zoo.attention.kernels.threads import openmp, pool

AS_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
SHARE = 1 << 16
"""A thread is worth its start for as many numbers of a map."""


def numbers(x: Tensor, *shape: int) -> Any:
    """NumPy's view of a tensor without gaps, which it keeps, in a `shape` of its own if one is given; of bf16 the bits.

    `x.numpy()` would forbid for good to resize the memory, as `fully_shard` does with that of parameters.
    """
    held: Any = (ctypes.c_char * x.nbytes).from_address(x.data_ptr())
    held.tensor = x
    return np.ndarray(shape or x.shape, AS_NUMPY[x.dtype], held)


def passes_of(x: Tensor) -> ModuleType:
    """The passes for `x` (B, C, H, W) or (B, C, D, H, W), by how it lies in memory."""
    if x.is_contiguous(memory_format=channels_last.FORMATS[x.ndim]):
        return channels_last
    return channels_last if x.stride(1) == 1 and not x.is_contiguous() else contiguous


def laid_out(x: Tensor) -> tuple[ModuleType, Tensor]:
    """The passes for `x`, and `x` as they take it: as it is, unless it has gaps."""
    passes = passes_of(x)
    return passes, x.contiguous(memory_format=passes.FORMATS[x.ndim])


def flat(x: Tensor, passes: ModuleType) -> Any:
    """NumPy's view of a map: (images, places, channels) or (images, channels, places); of bf16 the bits."""
    images, channels, *size = x.shape
    places = math.prod(size)
    return numbers(x, images, *((places, channels) if passes is channels_last else (channels, places)))


def far(passes: ModuleType) -> bool | None:
    """Whether a place's channels lie far apart, in the words of phases.py."""
    return None if passes is channels_last else True


def array(value: Tensor | float | None, like: Tensor) -> Any:
    """NumPy's view of a parameter, in the precision of `like`: of None an empty array, of a number an array of one."""
    if isinstance(value, Tensor):
        return numbers(value.contiguous())
    return np.array([] if value is None else [value], AS_NUMPY[like.dtype])


def over_images(go: Any, x: Any, *arguments: Any) -> None:
    """Call `go(start, stop, x, *arguments)` over all images of `x`, on as many threads as PyTorch uses."""
    images = len(x)
    threads = min(torch.get_num_threads(), images, x.size // SHARE)
    if threads <= 1:
        go(0, images, x, *arguments)
    elif (entries := openmp()) is None:
        pool(threads, lambda k, n: go(images * k // n, images * (k + 1) // n, x, *arguments))
    elif dealt(go)(entries, threads, x, *arguments):
        raise MemoryError(f"a part of {go.__name__}'s images")
