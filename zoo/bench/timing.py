"""Networks taking turns: what each round takes, and what that is beside the first network in the same round.

A busy machine slows neighbours in time alike, so ratios within a round bear it; their median and quartiles are kept.
One thread of a CPU is timed by the seconds that it computed, everything else by the clock.
"""

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.inference.device import autocast

Name = TypeVar("Name")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
COMPILED = 1 << 10
"""Networks at most, of one code; PyTorch's own limit is 8."""
LAYOUTS = {
    "channels_last": {4: torch.channels_last, 5: torch.channels_last_3d},
    "contiguous": {4: torch.contiguous_format, 5: torch.contiguous_format},
}


@dataclass(frozen=True)
class Conditions:
    """Under which all networks of a table are timed."""

    device: torch.device
    batch: int = 8
    train: bool = False
    dtype: str = "fp32"
    """`fp32`, or autocast: `bf16`, `fp16`."""
    layout: str = "channels_last"
    rounds: int = 11

    @property
    def of_cpu(self) -> bool:
        """Whether one thread's seconds of computing are counted."""
        return self.device.type == "cpu" and torch.get_num_threads() == 1


@dataclass(frozen=True)
class Timing:
    """Of one network."""

    seconds: float
    """A pass or a training step, median of the rounds."""
    ratio: float
    """To the first network, median of the rounds' ratios."""
    low: float
    high: float
    """Its quartiles."""
    peak_mib: float
    """The most that tensors took at once that a step made, gradients too; parameters and inputs were there before."""
    first: float
    """Seconds of the first step, compilation and all."""


def stepping(model: nn.Module, images: Tensor, how: Conditions) -> Callable[[], object]:
    """One pass, or one step of training by SGD, which leaves no gradients."""
    precision = autocast(how.device, "off" if how.dtype == "fp32" else how.dtype)
    if not how.train:

        def infer() -> object:
            with torch.inference_mode(), precision():
                return model(images)

        return infer
    with torch.no_grad():  # all images: torch.compile takes another batch for one that may be of any size
        classes = model(images).shape[1]
    labels = torch.arange(len(images), device=how.device) % classes
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def train() -> object:
        with precision():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that those of the step before are not in the memory of the next
        return loss

    return train


def take_turns(steps: Mapping[Name, Callable[[], object]], how: Conditions) -> dict[Name, Timing]:
    """Time the steps in rounds, in an order that changes; the first one is what the others are compared with."""
    first = {name: _seconds(step, how) for name, step in steps.items()}
    peaks = {name: peak_mib(step, how.device) for name, step in steps.items()}
    found: dict[Name, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(how.rounds):
        first_of_all = turn // 2 % len(names)
        order = names[first_of_all:] + names[:first_of_all]
        for name in order[:: -1 if turn % 2 else 1]:  # each order is followed by its reverse
            found[name].append(_seconds(steps[name], how))
    timings = {}
    for name, seconds in found.items():
        ratios = [a / b for a, b in zip(seconds, found[names[0]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        timings[name] = Timing(statistics.median(seconds), middle, low, high, peaks[name], first[name])
    return timings


def _seconds(step: Callable[[], object], how: Conditions) -> float:
    clock = time.process_time if how.of_cpu else time.perf_counter
    _wait(how.device)
    start = clock()
    step()
    _wait(how.device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_mib(step: Callable[[], object], device: torch.device) -> float:
    """The largest sum of tensors that a step makes and keeps at one time."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu":
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines on stderr
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        step()
    results: Any = watch.profiler.kineto_results if watch.profiler is not None else None
    made = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(made, key=lambda event: event.start_ns()):
        held += event.nbytes()  # less than 0 where one was freed
        peak = max(peak, held)
    return peak / 2**20


@contextmanager
def all_compiled() -> Iterator[None]:
    """Have torch.compile compile every network: of those that share code it leaves a ninth eager, and says nothing."""
    from torch._dynamo import config  # two seconds that only compiled networks need

    torch.compiler.reset()
    with config.patch(recompile_limit=COMPILED, accumulated_recompile_limit=COMPILED, fail_on_recompile_limit_hit=True):
        yield


@contextmanager
def memory_kept() -> Iterator[None]:
    """Have glibc keep what is freed: it gives large buffers back, and faults in every page of the next one anew."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tune is None:
        yield
        return
    tune(M_MMAP_MAX, 0)
    tune(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # glibc's defaults
        tune(M_MMAP_MAX, 65536)
        tune(M_TRIM_THRESHOLD, 128 * 1024)
