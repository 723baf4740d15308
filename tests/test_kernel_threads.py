"""Work dealt to threads: PyTorch's own, or ours where they cannot be had."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch

from zoo.attention.kernels import threads

WAYS: dict[str, Callable[[], threads.Way]] = {"openmp": threads.best_way, "pool": lambda: threads.pool}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP may lack GNU's entry")
def test_the_threads_are_those_of_pytorch() -> None:
    assert isinstance(threads.best_way(), partial)
    assert threads.best_way().func is threads.openmp


@pytest.mark.parametrize("way", WAYS)
def test_each_part_is_done_once_and_at_the_same_time(way: str) -> None:
    done: list[tuple[int, int, int]] = []
    meet = threading.Barrier(3, timeout=30)

    def share(k: int, n: int) -> None:
        meet.wait()
        done.append((k, n, threading.get_ident()))

    WAYS[way]()(3, share)
    assert sorted(each[:2] for each in done) == [(0, 3), (1, 3), (2, 3)]
    assert len({each[2] for each in done}) == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_part_raises_is_raised(way: str, part: int, error: type[BaseException]) -> None:
    def share(k: int, n: int) -> None:
        if k == part:
            raise error("in a part")

    with pytest.raises(error, match="in a part"):
        WAYS[way]()(2, share)


def test_inside_a_part_one_thread_does_all() -> None:
    """OpenMP nests no teams, and says so by `n`."""
    done: list[list[tuple[int, int]]] = []

    def share(k: int, n: int) -> None:
        mine: list[tuple[int, int]] = []
        threads.in_parallel(2, lambda k, n: mine.append((k, n)))
        done.append(sorted(mine))

    threads.in_parallel(2, share)
    assert all(mine in ([(0, 1)], [(0, 2), (1, 2)]) for mine in done), done


def _parts(found: "multiprocessing.Queue[list[int]]") -> None:
    parts: list[int] = []
    threads.in_parallel(2, lambda k, n: parts.append(k))
    found.put(sorted(parts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own() -> None:
    """GNU's OpenMP would wait there for threads that only the parent has."""
    threads.in_parallel(2, lambda k, n: torch.ones(k))
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_parts, args=(found,))
    child.start()
    try:
        assert found.get(timeout=30) == [0, 1]
    finally:
        child.kill()
