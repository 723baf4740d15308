"""Where the time goes that attention costs beside the plain network: milliseconds of a step, by what spends them.

    python scripts/kernel_profile.py

Of each network that misses its target in scripts/kernel_targets.csv. Both networks take turns under PyTorch's profiler,
which slows both; a time is the median of the steps. Kernels are what compiled code does for the gates; around them is
the rest of the gates' functions: views, buffers, PyTorch's bookkeeping. What the profiler names otherwise is PyTorch's
own, and costs more beside attention where caches hold less of it.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import kernel_targets
import torch
from measured import as_table, read_rows, write_rows
from torch.profiler import ProfilerActivity, profile, record_function

from zoo.attention import BAM, CBAM, SqueezeExcite

TABLE = Path(__file__).with_suffix(".csv")
KERNELS, AROUND = "zoo: kernels", "zoo: around them"
DEALERS = ("cbam", "se", "gated", "means", "plane_convolution")
"""The files of zoo/attention/kernels that deal images to threads."""
PARTS = {
    "kernels": (KERNELS,),
    "around them": (AROUND, "zoo_", "autograd::engine::evaluate_function: zoo_"),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution", "aten::_convolution", "aten::conv"),
    "batch norms": ("aten::native_batch_norm", "aten::_batch_norm"),
    "updates": ("Optimizer.",),
}
"""By how names begin; what begins otherwise is "other"."""
KEY = ("network", "task", "dtype", "batch", "threads")


def part_of(name: str) -> str:
    return next((part for part, starts in PARTS.items() if name.startswith(starts)), "other")


def milliseconds(step: Callable[[], Any]) -> dict[str, float]:
    """Of one step, by parts."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    spent: dict[str, float] = dict.fromkeys([*PARTS, "other"], 0.0)
    for event in seen.key_averages():
        spent[part_of(event.key)] += event.self_cpu_time_total / 1000
    return spent


def profiled(row: Mapping[str, str], rounds: int) -> dict[str, object]:
    """Both networks of a row of targets."""
    attention, name = row["subject"].split("_", 1)
    torch.set_num_threads(int(row["threads"]))
    steps = kernel_targets.networks(name, attention, row["task"], int(row["batch"]), row["dtype"])
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for turn in range(-2, rounds):
        for which in ("base", "kernels"):
            spent = milliseconds(steps[which])
            if turn >= 0:
                found[which].append(spent)
    plain, ours = (
        {part: statistics.median(spent[part] for spent in found[which]) for part in (*PARTS, "other")}
        for which in ("base", "kernels")
    )
    key = {"network": row["subject"], **{name: row[name] for name in KEY[1:]}}
    more = {part: f"{ours[part] - plain[part]:.1f}" for part in plain}
    return {**key, "plain_ms": f"{sum(plain.values()):.1f}", **more}


def missed(row: Mapping[str, str]) -> bool:
    return row["base"] == "plain" and float(row["kernels"]) > float(row["target"])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown."""
    heads = [*KEY, "plain, ms", *PARTS, "other"]
    lines = []
    for row in rows:
        more = [f"+{float(row[part]):.1f}".replace("+-", "-") for part in (*PARTS, "other")]
        lines.append([*(row[key] for key in KEY), row["plain_ms"], *more])
    return as_table(heads, lines)


def main() -> None:
    """Profile what misses its target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="steps of each network")
    options = parser.parse_args()
    kernel_targets.keep_memory()
    for name in DEALERS:
        module: Any = import_module(f"zoo.attention.kernels.{name}")
        module.over_images = record_function(KERNELS)(module.over_images)
    for attention in (CBAM, SqueezeExcite, BAM):
        attention.forward = record_function(AROUND)(attention.forward)
    rows: list[dict[str, object]] = []
    for row in filter(missed, read_rows(kernel_targets.TABLE)[1]):
        rows.append(profiled(row, options.rounds))
        write_rows(TABLE, kernel_targets.conditions(), rows)
        print(rows[-1], file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
