"""What attention costs on the CPU with the kernels of the extra `fast`, beside what it may cost.

    python scripts/kernel_targets.py

A row of scripts/kernel_targets.csv is one comparison, on one thread or two: a module beside timm's, a network beside
the plain one or beside timm's under torch.compile. Those compared take turns, in an order that changes each round; a
round's ratio is its time over that of the first, and the row has the median and the quartiles of the ratios, with
kernels and eager. Inputs are random, as are the norms' weights, which timm begins with zero. One thread is timed in CPU
seconds, which bear a busy machine; two by the clock. A row that is there is not measured again, unless --again is
given. glibc gives large buffers back to the system and faults them in anew unless two variables are set before the
process starts, as this script does for itself.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from measured import as_table, read_rows, require_like, write_rows
from timm.layers.cbam import CbamModule
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

import zoo
from zoo.attention import CBAM, SqueezeExcite, kernels
from zoo.bench.contestants import with_timms_gates
from zoo.bench.timing import all_compiled
from zoo.hardware import hardware

TABLE = Path(__file__).with_suffix(".csv")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
SIZES = {"resnet50": (8, 224), "mobilenetv2_100": (8, 224), "resnet20_cifar": (128, 32)}
FORMS = "kernels", "eager", "folded", "compiled", "joined"
"""What is measured beside the base, where it can be."""
Step = Callable[[], Any]


class Comparison(NamedTuple):
    """A row of the table: the target is of the time relative to the base's."""

    subject: str
    base: str
    task: str
    dtype: str
    batch: int
    target: float
    contenders: Callable[[int, str], dict[str, Step]]
    """Of the batch and the dtype, what is run: `base`, `kernels` and more."""


def in_dtype(dtype: str) -> Any:
    """bf16 is autocast's, as the trainer has it."""
    return torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else nullcontext()


def step_of(model: nn.Module, x: Tensor, dtype: str, way: str = "auto") -> Step:
    """One update of a network, or one gradient of a module, whose output is a map."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9) if x.shape[1] == 3 else None
    goal = torch.randint(100, (len(x),)) if optimizer else torch.randn_like(x)
    x = x if optimizer else x.requires_grad_()

    def step() -> None:
        with kernels(way):
            with in_dtype(dtype):
                y = model(x)
            if optimizer is None:
                y.backward(goal)
                return
            F.cross_entropy(y.float(), goal).backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def inference_of(model: nn.Module, x: Tensor, dtype: str, way: str = "auto") -> Step:
    """One forward pass."""

    def step() -> None:
        with kernels(way), in_dtype(dtype), torch.inference_mode():
            model(x)

    return step


TASKS = {"training": step_of, "inference": inference_of}


def ready(model: nn.Module, task: str) -> nn.Module:
    """In its mode and layout, with norms that let a branch through."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
    return model.train(task == "training").to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def images(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def modules(ours: type[nn.Module], theirs: type[nn.Module], task: str, batch: int, dtype: str) -> dict[str, Step]:
    """A module alone on a map of ResNet-50's first stage, beside timm's."""
    run = partial(TASKS[task], x=images(batch, 256, 56, 56), dtype=dtype)
    own = ready(ours(256), task)
    return {"base": run(ready(theirs(256), task)), "kernels": run(own), "eager": run(own, way="off")}


def network(name: str, task: str) -> nn.Module:
    torch.manual_seed(0)
    return ready(timm.create_model(name, num_classes=100), task)


def networks(name: str, attention: str, task: str, batch: int, dtype: str) -> dict[str, Step]:
    """A network with attention beside the plain one; for inference its norms are folded, too."""
    x = images(batch, 3, *[SIZES[name][1]] * 2)
    run = partial(TASKS[task], x=x, dtype=dtype)
    own = f"{attention}_{name}"
    folded = {"folded": run(zoo.fuse_for_inference(network(own, task), x[:1]))} if task == "inference" else {}
    return {
        "base": run(network(name, task)),
        "kernels": run(network(own, task)),
        "eager": run(network(own, task), way="off"),
        **folded,
    }


def compiled_networks(name: str, attention: str, task: str, batch: int, dtype: str) -> dict[str, Step]:
    """A network with attention, compiled or not, beside timm's gates in the same network, compiled.

    Compiled in both ways: with each gate as one operation, or joined by the compiler from its eager form.
    """
    run = partial(TASKS[task], x=images(batch, 3, *[SIZES[name][1]] * 2), dtype=dtype)
    own = f"{attention}_{name}"
    theirs = ready(with_timms_gates(network(own, task)), task)
    return {
        "base": run(torch.compile(theirs)),  # pyright: ignore[reportArgumentType]
        "kernels": run(network(own, task)),
        "compiled": run(torch.compile(network(own, task))),  # pyright: ignore[reportArgumentType]
        "joined": run(torch.compile(network(own, task)), way="off"),  # pyright: ignore[reportArgumentType]
    }


def comparisons() -> Iterator[Comparison]:
    """The table of targets."""
    for ours, theirs, goals in ((CBAM, CbamModule, (0.25, 0.60)), (SqueezeExcite, SEModule, (0.60, 0.90))):
        for task, goal in zip(TASKS, goals, strict=True):
            subject = f"{ours.__name__} module 8x256x56x56"
            yield Comparison(subject, "timm's", task, "fp32", 8, goal, partial(modules, ours, theirs, task))
    goals = {
        "cbam": {"resnet50": (1.05, 1.10), "mobilenetv2_100": (1.17, 1.20), "resnet20_cifar": (1.17, 1.28)},
        "se": dict.fromkeys(SIZES, (1.08, 1.12)),
        "bam": dict.fromkeys(SIZES, (1.10, 1.15)),
    }
    for attention, of in goals.items():
        for name, pair in of.items():
            run = partial(networks, name, attention, "training")
            for dtype, goal in zip(("fp32", "bf16"), pair, strict=True):
                yield Comparison(f"{attention}_{name}", "plain", "training", dtype, SIZES[name][0], goal, run)
    for name in SIZES:
        for batch in (1, 8):
            run = partial(networks, name, "cbam", "inference")
            yield Comparison(f"cbam_{name}", "plain", "inference", "fp32", batch, 1.06, run)
    for name, (batch, _) in SIZES.items():
        for attention in ("cbam", "se"):
            for task in TASKS:
                run = partial(compiled_networks, name, attention, task)
                yield Comparison(f"{attention}_{name}", "timm's, compiled", task, "fp32", batch, 1.0, run)


def measure(steps: dict[str, Step], threads: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each step, round by round, for so long, but at least 7 rounds."""
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    names, turn = list(steps), -2  # the first two rounds warm up
    until = time.monotonic() + seconds
    while turn < 7 or time.monotonic() < until:
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order[:: -1 if turn % 2 else 1]:
            start = clock()
            steps[name]()
            if turn >= 0:
                times[name].append(clock() - start)
        until = until if turn >= 0 else time.monotonic() + seconds
        turn += 1
    return times


def key_of(comparison: Comparison, threads: int) -> dict[str, object]:
    names = ("subject", "base", "task", "dtype", "batch")
    return {**{name: getattr(comparison, name) for name in names}, "threads": threads}


def row_of(comparison: Comparison, threads: int, seconds: float) -> dict[str, object]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with all_compiled():
        times = measure(comparison.contenders(comparison.batch, comparison.dtype), threads, seconds)
    row: dict[str, object] = {**key_of(comparison, threads), "target": comparison.target}
    for name in FORMS:
        ratios = [a / b for a, b in zip(times.get(name, []), times["base"], strict=False)]
        found = statistics.quantiles(ratios, n=4) if ratios else [None] * 3
        for suffix, value in zip(("_q1", "", "_q3"), found, strict=True):
            row[name + suffix] = "" if value is None else f"{value:.3f}"
    for name in ("base", "kernels"):
        row[f"{name}_img_per_s"] = f"{comparison.batch / statistics.median(times[name]):.1f}"
    return {**row, "rounds": len(times["base"])}


def keep_memory() -> None:
    """Start the script again with MALLOC, unless it has been."""
    if any(os.environ.get(key) != value for key, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})


def conditions() -> str:
    """What was measured on and with."""
    malloc = " ".join(f"{key}={value}" for key, value in MALLOC.items())
    return (
        f"{hardware(torch.device('cpu'))}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"timm {timm.__version__}, numba {version('numba')}; channels_last, {malloc}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The targets and what was reached, as Markdown; * is a target missed."""
    heads = "compared", "with", "task", "dtype", "batch", "threads", "target", *FORMS
    lines = []
    for row in rows:
        best = min(float(row[form]) for form in ("kernels", "compiled") if row[form])
        missed = "" if best <= float(row["target"]) else " *"
        cells = [row[key] for key in ("subject", "base", "task", "dtype", "batch", "threads", "target")]
        cells.append(f"{row['kernels']} ({row['kernels_q1']} to {row['kernels_q3']}){missed}")
        cells += [row[form] or "-" for form in FORMS[1:]]
        lines.append([str(cell) for cell in cells])
    return as_table(heads, lines)


def main() -> None:
    """Measure what is missing and print the table; * is a target missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="a row's time, after it is warm")
    parser.add_argument("--only", default="", help="rows whose words all occur in the row: 'cbam_resnet50 bf16'")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    keep_memory()
    rows: list[dict[str, Any]] = read_rows(TABLE)[1] if TABLE.exists() else []
    shown = []
    for comparison in comparisons():
        for threads in options.threads:
            key = {name: str(value) for name, value in key_of(comparison, threads).items()}
            words = " ".join(key.values())
            if any(word not in words for word in options.only.split()):
                continue
            there = [row for row in rows if all(str(row[name]) == value for name, value in key.items())]
            if there and not options.again:
                shown += there
                continue
            require_like(TABLE, conditions())
            row = row_of(comparison, threads, options.seconds)
            rows = [each for each in rows if each not in there] + [row]
            write_rows(TABLE, conditions(), rows)
            shown.append(row)
            print(row, file=sys.stderr)
    print(table(shown))


if __name__ == "__main__":
    main()
