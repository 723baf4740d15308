"""Images dealt to threads: PyTorch's own, or ours where they cannot be had."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_threads import torch_threads

pytest.importorskip("numba", reason="the kernels need numba, the extra `fast`")
from zoo.attention.kernels import fork_join, maps, threads
from zoo.attention.kernels.compiled import compiled

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP may lack GNU's entry")


@compiled
def note(start: int, stop: int, x: Any, parts: Any, scale: float) -> None:
    """Each image's part, told by where it begins and ends."""
    for image in range(start, stop):
        parts[image, 0] = start
        parts[image, 1] = stop
        parts[image, 2] = x[image].sum() * scale


@compiled
def run_out(start: int, stop: int, x: Any, bad: int) -> None:
    """Ask for more memory than there is, in the part that has image `bad`."""
    if start <= bad < stop:
        x[start] = np.empty(1 << 60, np.uint8)[0]


def parts_of(images: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """What `note` wrote of a map of as many images, large enough to be dealt."""
    x = np.random.default_rng(0).standard_normal((images, maps.SHARE // images * wanted + 1))
    parts = np.full((images, 3), np.nan)
    with torch_threads(wanted):
        maps.over_images(note, x, parts, 2.0)
    return x, parts


def no_openmp() -> None:
    return None


@pytest.mark.parametrize("openmp", [pytest.param(threads.openmp, marks=linux), no_openmp], ids=["openmp", "pool"])
@pytest.mark.parametrize(("images", "wanted"), [(1, 2), (2, 2), (5, 2), (7, 3), (3, 8)])
def test_each_image_is_done_once_by_parts_as_equal_as_can_be(
    openmp: Callable[[], Any], images: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "openmp", openmp)
    x, parts = parts_of(images, wanted)
    n = min(images, wanted)
    bounds = [(images * k // n, images * (k + 1) // n) for k in range(n)]
    assert [tuple(each) for each in parts[:, :2]] == [each for each in bounds for _ in range(*each)]
    np.testing.assert_allclose(parts[:, 2], x.sum(1) * 2, rtol=1e-9)


@linux
def test_the_threads_are_those_of_pytorch() -> None:
    """Its OpenMP says how many there are, and no thread of Python's begins."""
    assert threads.openmp() is not None
    before = threading.active_count()
    parts_of(4, 2)
    assert threading.active_count() == before


@linux
@pytest.mark.parametrize("bad", [0, 3])
def test_a_part_that_fails_is_heard_of(bad: int) -> None:
    openmp = threads.openmp()
    deal = fork_join.dealt(run_out)
    assert deal(openmp, 2, np.zeros(4), bad)
    assert not deal(openmp, 2, np.zeros(4), 9)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("part", [0, 1])
def test_what_a_part_raises_on_our_own_threads_is_raised(part: int, error: type[BaseException]) -> None:
    def share(k: int, n: int) -> None:
        if k == part:
            raise error("in a part")

    with pytest.raises(error, match="in a part"):
        threads.pool(2, share)


def test_our_own_threads_work_at_the_same_time() -> None:
    meet = threading.Barrier(3, timeout=30)
    done: list[tuple[int, int, int]] = []

    def share(k: int, n: int) -> None:
        meet.wait()
        done.append((k, n, threading.get_ident()))

    threads.pool(3, share)
    assert sorted(each[:2] for each in done) == [(0, 3), (1, 3), (2, 3)]
    assert len({each[2] for each in done}) == 3


@linux
def test_two_threads_of_python_may_deal_at_once() -> None:
    found: list[np.ndarray] = []
    several = [threading.Thread(target=lambda: found.append(parts_of(6, 2)[1])) for _ in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join(30)
    assert len(found) == 4
    assert all((each[:, 0] <= np.arange(6)).all() and (np.arange(6) < each[:, 1]).all() for each in found)


def _parts(found: "multiprocessing.Queue[list[float]]") -> None:
    found.put(parts_of(4, 2)[1][:, 0].tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own() -> None:
    """GNU's OpenMP would wait there for threads that only the parent has."""
    parts_of(4, 2)
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[list[float]] = context.Queue()
    child = context.Process(target=_parts, args=(found,))
    child.start()
    try:
        assert found.get(timeout=30) == [0, 0, 2, 2]
    finally:
        child.kill()


MEANS = (
    "import numpy as np; from zoo.attention.kernels import channels_last, compiled, fork_join, threads;"
    "x = np.ones((6, 5, 8)); y = np.zeros((6, 8));"
    "fork_join.dealt(channels_last.mean_of_space)(threads.openmp(), 3, x, y);"
    "assert (y == 1).all(); print(compiled.stopwatch.take()[0])"
)
"""A program that deals six images to three threads, and says how many kernels it compiled."""


def run_means(**variables: str) -> str:
    environment = os.environ | variables
    command = [sys.executable, "-c", MEANS]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout.strip()


@linux
def test_fewer_threads_than_were_asked_for_do_all_images() -> None:
    """OpenMP has fewer at its limit, and inside of a team, and says so."""
    run_means(OMP_THREAD_LIMIT="1")


@linux
def test_what_was_compiled_is_found_on_disk_by_the_next_process(tmp_path: Path) -> None:
    assert [run_means(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)] == ["1", "0"]
