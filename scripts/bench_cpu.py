"""Time whole attention networks on the CPU beside timm's and pytorchcv's, in CPU seconds of one thread.

    pip install -e ".[bench]" && python scripts/bench_cpu.py > scripts/bench_cpu.csv      6 minutes

The networks of a group take turns, in an order that changes each round, so that a busy machine slows all alike; the
ratio of a round is its time over that of the group's first network, and the table has the median and the quartiles.
glibc gives large buffers back to the system and faults them in anew unless MALLOC_MMAP_THRESHOLD_ and
MALLOC_TRIM_THRESHOLD_ are set before the process starts, as this script does for itself.
"""

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
if __name__ == "__main__" and any(os.environ.get(key) != value for key, value in MALLOC.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})

import timm  # noqa: E402
import torch  # noqa: E402
from timm.layers.cbam import CbamModule  # noqa: E402
from timm.models import EfficientNet  # noqa: E402
from timm.models.efficientnet import decode_arch_def  # noqa: E402
from torch import nn  # noqa: E402

import zoo  # noqa: F401, E402

MOBILENET_V2 = [
    ["ds_r1_k3_s1_c16_se0.0625"],
    ["ir_r2_k3_s2_e6_c24_se0.0625"],
    ["ir_r3_k3_s2_e6_c32_se0.0625"],
    ["ir_r4_k3_s2_e6_c64_se0.0625"],
    ["ir_r3_k3_s1_e6_c96_se0.0625"],
    ["ir_r3_k3_s2_e6_c160_se0.0625"],
    ["ir_r1_k3_s1_e6_c320_se0.0625"],
]


def timm_cbam_mobilenet() -> nn.Module:
    """MobileNetV2 with timm's CbamModule in the same slots and with the same reduction as ours."""

    def layer(channels: int, act_layer: object = None, **kwargs: object) -> CbamModule:
        return CbamModule(channels, rd_ratio=1 / 16, **kwargs)  # pyright: ignore[reportArgumentType]

    return EfficientNet(decode_arch_def(MOBILENET_V2), act_layer=nn.ReLU6, se_layer=layer)  # pyright: ignore


def pytorchcv(name: str) -> nn.Module:
    """A network of pytorchcv, without weights."""
    from pytorchcv.model_provider import get_model  # pyright: ignore[reportMissingImports]  (the extra `bench`)

    return get_model(name)


def timm_resnet(depth: int, layer: str) -> nn.Module:
    """timm's ResNet with one of timm's own gates in each block."""
    return timm.create_model(f"resnet{depth}", block_args={"attn_layer": layer})


GROUPS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "SE in ResNet-50": {
        "timm se": lambda: timm_resnet(50, "se"),
        "zoo se_resnet50": lambda: timm.create_model("se_resnet50"),
    },
    "CBAM in ResNet-50": {
        "timm cbam": lambda: timm_resnet(50, "cbam"),
        "zoo cbam_resnet50": lambda: timm.create_model("cbam_resnet50"),
        "pytorchcv cbam_resnet50": lambda: pytorchcv("cbam_resnet50"),
    },
    "BAM in ResNet-50": {
        "pytorchcv bam_resnet50": lambda: pytorchcv("bam_resnet50"),
        "zoo bam_resnet50": lambda: timm.create_model("bam_resnet50"),
    },
    "SE in ResNet-18": {
        "timm se": lambda: timm_resnet(18, "se"),
        "zoo se_resnet18": lambda: timm.create_model("se_resnet18"),
        "pytorchcv seresnet18": lambda: pytorchcv("seresnet18"),
    },
    "CBAM in ResNet-18": {
        "timm cbam": lambda: timm_resnet(18, "cbam"),
        "zoo cbam_resnet18": lambda: timm.create_model("cbam_resnet18"),
        "pytorchcv cbam_resnet18": lambda: pytorchcv("cbam_resnet18"),
    },
    "CBAM in MobileNetV2": {
        "timm cbam": timm_cbam_mobilenet,
        "zoo cbam_mobilenetv2_100": lambda: timm.create_model("cbam_mobilenetv2_100"),
    },
}


def cpu_seconds(model: nn.Module, x: torch.Tensor) -> float:
    """CPU time of one forward pass."""
    start = time.process_time()
    with torch.inference_mode():
        model(x)
    return time.process_time() - start


def bench(
    group: dict[str, Callable[[], nn.Module]], batch: int, layout: torch.memory_format, rounds: int
) -> list[list]:
    """Rows of name, median milliseconds, and the ratio's median and quartiles."""
    torch.manual_seed(0)
    models = {name: build().eval().to(memory_format=layout) for name, build in group.items()}
    x = torch.randn(batch, 3, 224, 224).contiguous(memory_format=layout)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(-1, rounds):  # the first turn warms up
        order = list(models)[turn % len(models) :] + list(models)[: turn % len(models)]
        for name in order[:: -1 if turn % 2 else 1]:
            seconds = cpu_seconds(models[name], x)
            if turn >= 0:
                times[name].append(seconds)
    first = times[next(iter(models))]
    rows = []
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append([name, f"{1000 * statistics.median(seconds):.1f}", f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}"])
    return rows


def main() -> None:
    """Print a CSV table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a group's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    print(
        f"# torch {torch.__version__}, timm {timm.__version__}, one thread, fp32, 224 pixels, {options.rounds} rounds"
    )
    writer.writerow(["group", "batch", "layout", "network", "ms", "ratio", "ratio_q1", "ratio_q3"])
    for title, group in GROUPS.items():
        if options.only not in title:
            continue
        for layout in (torch.contiguous_format, torch.channels_last):
            for batch in (1, 8):
                for row in bench(group, batch, layout, options.rounds):
                    writer.writerow([title, batch, str(layout).removeprefix("torch."), *row])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
