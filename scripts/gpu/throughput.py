"""Images a second of whole training steps out of the device's memory, and where in the step the time goes.

    PYTHONPATH=. python scripts/gpu/throughput.py --minutes 8.5

Each network takes steps of its CIFAR-100 recipe on drawn images: warm-up, then rounds of steps between events on the
device; median and quartiles of the rounds. `data`, `network` and `optimizer` are shares of the step (crop, flip, erase,
normalise; forward, loss, backward; update), `outside` is what is not the network, and `busy` is the share of the time
in which a kernel runs at all (from torch's profiler, on a GPU): where it is small, runs fit side by side. `issue_ms` is
what the host needs to issue a step. Rows that are there already are not measured again.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fleet import RECIPES, checked
from step import PARTS, Compiler, Steps, drawn_data
from tables import RESULTS, UNFINISHED, Ledger, command_line, machine, print_table, write_table

from zoo.data import Data
from zoo.inference.device import pick_device
from zoo.training.memory import peak_memory_mib
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import load_recipe

BACKBONES = ("resnet20", "resnet18", "resnet50", "mobilenetv2_100")
ATTENTIONS = ("plain", "se", "cbam", "bam")
COLUMNS = ("model", "how", "batch", "img_per_s", "q1", "q3", "step_ms", "issue_ms", *PARTS, "outside", "busy")
HOW: dict[str, Compiler] = {
    "eager": lambda model: model,
    "compiled": torch.compile,
    "graphs": partial(torch.compile, mode="reduce-overhead"),
}
"""`graphs` (compiled, replayed as CUDA graphs) is not what a recipe's `compile = true` does; it shows what could be."""


class HostClock:
    """Marks in the host's time, for devices that do not run ahead of it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def mark(self) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def between(self) -> list[float]:
        """Seconds from each mark to the next."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


class DeviceClock:
    """Marks in the GPU's time: events in its queue."""

    def __init__(self) -> None:
        self.events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Put an event into the queue."""
        self.events.append(torch.cuda.Event(enable_timing=True))
        self.events[-1].record()

    def between(self) -> list[float]:
        """Seconds from each mark to the next; waits for the last one."""
        self.events[-1].synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(self.events, self.events[1:], strict=False)]


def clock(device: torch.device) -> HostClock | DeviceClock:
    """What marks are made with on this device."""
    return DeviceClock() if device.type == "cuda" else HostClock()


def wait_for(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done all."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def measure(steps: Steps, rounds: int, count: int, warm_up: int) -> dict[str, Any]:
    """Figures of `rounds` rounds of `count` steps."""
    device, batch = steps.job.world.device, steps.recipe.batch_size
    wait = wait_for(device)
    started = time.perf_counter()
    for _ in range(warm_up):
        steps()
    wait()
    warm = time.perf_counter() - started
    speeds, issued, parts = [], [], {part: 0.0 for part in PARTS}
    for _ in range(rounds):
        marks = clock(device)
        started = time.perf_counter()
        for _ in range(count):
            steps(marks.mark)
        issued.append((time.perf_counter() - started) / count)
        wait()
        speeds.append(batch * count / (time.perf_counter() - started))
        for number, seconds in enumerate(marks.between()):  # four marks a step; the fourth gap is none of the step's
            if number % (len(PARTS) + 1) < len(PARTS):
                parts[PARTS[number % (len(PARTS) + 1)]] += seconds
    low, middle, high = statistics.quantiles(speeds, n=4) if rounds > 1 else speeds * 3
    whole = sum(parts.values())
    return {
        "batch": batch,
        "img_per_s": middle,
        "q1": low,
        "q3": high,
        "step_ms": 1000 * batch / middle,
        "issue_ms": 1000 * statistics.median(issued),
        **{part: seconds / whole for part, seconds in parts.items()},
        "outside": 1 - parts["network"] / whole,
        "busy": _busy(steps, count) if device.type == "cuda" else "-",
        "peak_mib": peak_memory_mib(device),
        "warm_up_s": warm,
        "rounds": rounds,
        "steps": count,
    }


def _busy(steps: Steps, count: int) -> float:
    """Share of the time in which a kernel runs; the wall time is that of the same steps without the profiler."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        steps()
    torch.cuda.synchronize()
    wall = time.perf_counter() - started
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(count):
            steps()
        torch.cuda.synchronize()
    kernels: Any = profiler.events()
    on_device = [e for e in kernels if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation]
    return sum(event.self_device_time_total for event in on_device) / 1e6 / wall


def case(recipe: Recipe, how: str, data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one network."""
    device = pick_device(recipe.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = Steps(recipe, data, device, HOW[how])
    row = {"model": recipe.model, "how": how, **measure(steps, options.rounds, options.steps, options.warm_up)}
    torch._dynamo.reset()
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME", help="without _cifar")
    parser.add_argument("--attentions", nargs="+", default=ATTENTIONS, metavar="NAME")
    parser.add_argument("--how", nargs="+", choices=HOW, default=("eager", "compiled"))
    parser.add_argument("--recipe", default="configs/cifar100_{backbone}_short.toml", help="default: %(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipes")
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30, help="a round")
    parser.add_argument("--warm-up", type=int, default=20, help="steps; compilation and cuDNN's choices are in them")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no row after that; one takes up to a minute")
    parser.add_argument("--state", type=Path, default=Path("runs/throughput.json"), help="default: %(default)s")
    parser.add_argument("--table", type=Path, default=RESULTS / "throughput.csv")
    options = parser.parse_args(argv)
    return checked(lambda: _work(argv, options))


def _work(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    until, ledger = time.monotonic() + 60 * options.minutes, Ledger(options.state)
    cases: dict[str, tuple[Recipe, str]] = {}
    for how in options.how:
        for backbone in options.backbones:
            source = options.recipe.format(backbone=RECIPES.get(backbone, backbone))
            for attention in options.attentions:
                model = f"{'' if attention == 'plain' else attention + '_'}{backbone}_cifar"
                recipe = load_recipe(source, [f"model={model}", *options.set])
                cases[f"{model} {how}"] = replace(recipe, loader="device"), how
    data: Data | None = None
    for key, (recipe, how) in cases.items():
        if key in ledger.rows or time.monotonic() > until:
            continue
        if data is None:
            ledger.call({"command": command_line(argv), **machine(pick_device(recipe.device))})
            data = drawn_data(options.images, 100, (32, 32))
        print(f"{key} ...", file=sys.stderr, flush=True)
        ledger.add(key, case(recipe, how, data, options))
    rows = [
        ledger.rows.get(key, {"model": r.model, "how": how, "img_per_s": "not yet run"})
        for key, (r, how) in cases.items()
    ]
    head = [
        f"training steps of {options.recipe} {' '.join(options.set)} on drawn images in the device's memory; seed 0"
    ]
    write_table(options.table, [*COLUMNS, "peak_mib", "warm_up_s", "rounds", "steps"], rows, [*head, *ledger.head()])
    print_table(COLUMNS, rows)
    measured = sum(key in ledger.rows for key in cases)
    print(f"\n{measured} of {len(cases)} rows measured -> {options.table}")
    return 0 if measured == len(cases) else UNFINISHED


if __name__ == "__main__":
    sys.exit(main())
