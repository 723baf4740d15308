"""The Triton kernels on this GPU beside eager PyTorch, compiled or not, and the traffic that they cannot do without.

    PYTHONPATH=. python scripts/gpu/bench_kernels.py

Of each operation at the sizes of ResNet-50 and MobileNetV2, with and without shortcut and ReLU: milliseconds forward
and forward with backward, medians of interleaved rounds; the share of the time that its readings and writings of a map
take at the speed with which this GPU copies; memory beside the map. **Never run on a GPU.** On a CPU, with `--tiny` and
TRITON_INTERPRET=1, it shows that it runs, and no time means anything. Run correctness.py first.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fleet import checked
from kernel_cases import Case, make_case
from tables import RESULTS, command_line, machine, print_table, write_table

from zoo.inference.device import pick_device

SHAPES = {
    "resnet50": [(256, 256, 56, 56), (256, 512, 28, 28), (256, 1024, 14, 14), (256, 2048, 7, 7)],
    "mobilenetv2_100": [(256, 96, 112, 112), (256, 144, 56, 56), (256, 960, 7, 7)],
}
TINY = {"resnet50": [(2, 20, 5, 5)], "mobilenetv2_100": [(2, 20, 5, 5)]}
PASSES = {("cbam", True): (5, 9), ("se", True): (4, 6), ("amplify", True): (3, 5)}
PASSES |= {("cbam", False): (4, 7), ("se", False): (3, 4), ("amplify", False): (2, 3)}
"""Readings and writings of the map, forward and backward, with shortcut and ReLU or without."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COLUMNS = (
    "operation",
    "network",
    "shape",
    "dtype",
    "way",
    "mode",
    "ms",
    "q1",
    "q3",
    "floor_ms",
    "of_floor",
    "peak_mib",
)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """One call, to its end."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def copy_speed(device: torch.device, size: int) -> float:
    """Bytes a second, read and written."""
    one = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    other = torch.empty_like(one)
    return 2 * size / statistics.median(seconds(lambda: other.copy_(one), device) for _ in range(20))


def measure(
    case: Case, compiled: bool, rounds: int, floors: dict[str, float], device: torch.device
) -> list[dict[str, Any]]:
    """A row a way and mode; the ways take turns."""
    forms: dict[str, Callable[[], torch.Tensor]] = {"eager": case.eager, "triton": case.kernel}
    if compiled:
        forms["eager compiled"] = torch.compile(case.eager, dynamic=False)
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for way, form in forms.items():

        def infer(form: Callable[[], torch.Tensor] = form) -> object:
            with torch.no_grad():
                return form()

        def train(form: Callable[[], torch.Tensor] = form) -> object:
            return torch.autograd.grad(form(), case.leaves(), case.dy)

        calls |= {(way, "forward"): infer, (way, "both"): train}
    peaks: dict[tuple[str, str], float] = {}
    for key, call in calls.items():
        call()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            peaks[key] = (torch.cuda.max_memory_allocated() - before) / 2**20
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            times[key].append(1000 * seconds(call, device))
    rows = []
    for (way, mode), found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        floor = floors[mode]
        rows.append(
            {
                "way": way,
                "mode": mode,
                "ms": middle,
                "q1": low,
                "q3": high,
                "floor_ms": floor,
                "of_floor": floor / middle,
            }
            | {"peak_mib": peaks.get((way, mode), float("nan"))}
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=("bf16",))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled eager form")
    parser.add_argument("--tiny", action="store_true", help="one small shape, for a machine without a GPU")
    parser.add_argument("--device", default="")
    parser.add_argument("--table", type=Path, default=RESULTS / "bench_kernels.csv")
    options = parser.parse_args(argv)
    return checked(lambda: _work(argv, options))


def _work(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    device = pick_device(options.device)
    speed = copy_speed(device, 1 << 16 if options.tiny else 1 << 30)
    rows: list[dict[str, Any]] = []
    for network, shapes in (TINY if options.tiny else SHAPES).items():
        residual = network == "resnet50"
        for (name, with_shortcut), (forward, backward) in PASSES.items():
            if with_shortcut != residual:
                continue
            for shape in shapes:
                for dtype in options.dtypes:
                    print(f"{name} {network} {shape} {dtype} ...", file=sys.stderr, flush=True)
                    case = make_case(name, shape, DTYPES[dtype], device, residual)
                    once = 1000 * case.x.numel() * case.x.element_size() / speed
                    floors = {"forward": forward * once, "both": (forward + backward) * once}
                    about = {"operation": name, "network": network, "shape": "x".join(map(str, shape)), "dtype": dtype}
                    found = measure(case, not options.no_compile, options.rounds, floors, device)
                    rows += [about | row for row in found]
    facts = machine(device) | {"copy": f"{speed / 1e9:.0f} GB/s", "command": command_line(argv)}
    write_table(options.table, COLUMNS, rows, [", ".join(f"{key} {value}" for key, value in facts.items())])
    print_table(COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
