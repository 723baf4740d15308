"""A table of networks beside each other: `zoo bench`."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from zoo.bench.contestants import BenchError, contestants, randomise
from zoo.bench.timing import LAYOUTS, Conditions, Timing, all_compiled, memory_kept, stepping, take_turns
from zoo.errors import in_a_line
from zoo.hardware import hardware

PACKAGES = ("torch", "timm", "numba", "pytorchcv")


@dataclass(frozen=True)
class Row:
    """One network under one set of conditions; the fields are the columns of the CSV file."""

    model: str
    """That was asked for."""
    network: str
    """That was timed beside it, or itself."""
    form: str
    """`eager`, `compiled` or `fused`."""
    beside: str
    """The first network of the table, with which it is compared."""
    mode: str
    """`train` or `infer`."""
    dtype: str
    batch: int
    size: str
    layout: str
    threads: int
    ms: float
    img_per_s: float
    ratio: float
    """Of its time to that of `beside`, median of the rounds."""
    ratio_q1: float
    ratio_q3: float
    peak_mib: float
    first_s: float
    """Of the first step, with compilation."""
    rounds: int
    clock: str
    """`computing`, the seconds that one thread computed, or `wall`."""
    hardware: str
    software: str


def bench(
    model: str,
    against: Iterable[str],
    how: Conditions,
    size: tuple[int, ...] = (),
    compiled: bool = False,
    fuse: Callable[[nn.Module, torch.Tensor], nn.Module] | None = None,
) -> list[Row]:
    """Time `model` beside others; `compiled` adds all of them compiled, `fuse` the model folded for inference."""
    networks, spec = contestants(model, list(against))
    if fuse is not None and how.train:
        raise BenchError("a fused network cannot be trained; leave out --fuse or --train")
    spec = spec.of_size(_sides(size, spec.size) if size else spec.size)
    torch.manual_seed(0)
    layout: Any = LAYOUTS[how.layout][1 + len(spec.shape)]
    images = torch.randn(how.batch, *spec.shape, device=how.device).contiguous(memory_format=layout)
    built: dict[tuple[str, str], Any] = {}
    for each in networks:
        network = randomise(each.build()).train(how.train).to(how.device)
        built[each.name, "eager"] = network.to(memory_format=layout)
    plain = list(built.items())
    if fuse is not None:
        built[model, "fused"] = fuse(built[model, "eager"], images[:1])
    if compiled:
        built |= {(name, "compiled"): torch.compile(network) for (name, _), network in plain}
    with memory_kept(), all_compiled() if compiled else nullcontext():
        try:
            steps = {key: stepping(network, images, how) for key, network in built.items()}
            timings = take_turns(steps, how)
        except (RuntimeError, AssertionError) as error:
            if not size:
                raise
            raise BenchError(
                f"{model} and what stands beside it do not run at {_words(spec.size)}: {in_a_line(error)}"
            ) from error
    return [_row(model, name, form, networks[0].name, spec.size, how, timings[name, form]) for name, form in built]


def _row(model: str, name: str, form: str, beside: str, size: tuple[int, ...], how: Conditions, timing: Timing) -> Row:
    return Row(
        model=model,
        network=name,
        form=form,
        beside=beside,
        mode="train" if how.train else "infer",
        dtype=how.dtype,
        batch=how.batch,
        size=_words(size),
        layout=how.layout,
        threads=torch.get_num_threads(),
        ms=round(1000 * timing.seconds, 2),
        img_per_s=round(how.batch / timing.seconds, 1),
        ratio=round(timing.ratio, 3),
        ratio_q1=round(timing.low, 3),
        ratio_q3=round(timing.high, 3),
        peak_mib=round(timing.peak_mib, 1),
        first_s=round(timing.first, 1),
        rounds=how.rounds,
        clock="computing" if how.of_cpu else "wall",
        hardware=hardware(how.device),
        software=software(),
    )


def software() -> str:
    """The versions that decide, such as `torch 2.15.0, timm 1.0.31`."""
    found = []
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def _sides(size: tuple[int, ...], own: tuple[int, ...]) -> tuple[int, ...]:
    """One side is that of a square. Raises BenchError."""
    sides = size * len(own) if len(size) == 1 and len(own) == 2 else size
    if len(sides) != len(own):
        raise BenchError(f"--image-size takes {len(own)} sides here, such as {_words(own)}, not {_words(size)}")
    return sides


def _words(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
