"""Which tools of timm, torch and torchvision work on which networks: each on the plain network and beside it on ours.

    python scripts/tools_matrix.py
    python scripts/tools_matrix.py "cbam_*" --tools quantis update_bn

For each family of networks one of each attention, all tools of tools_of_timm.py, tools_of_torch.py and
tools_of_others.py. A row of scripts/tools_matrix.csv is a network and a tool, and says `passes`, `fails`, or
`as plain`: it fails on the plain network, too. A network whose rows are there is not repeated; with names or --tools
the results are printed and nothing is written. Tools of packages that are not installed are left out:
segmentation_models_pytorch, torchao, and onnxruntime with onnxscript.
"""

import argparse
import fnmatch
import os
import platform
import sys
import textwrap
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import tools_of_others
import tools_of_timm
import tools_of_torch
import torch
from measured import read_rows, write_rows
from tool_network import Make, Tool

from zoo.models.backbones import BACKBONES
from zoo.models.variants import VARIANTS, Variant

TOOLS: dict[str, Tool] = {**tools_of_timm.TOOLS, **tools_of_torch.TOOLS, **tools_of_others.TOOLS}
TABLE = Path(__file__).with_suffix(".csv")
FAMILIES = {
    # title: backbones; of each attention the first that has it
    "ResNet": ("resnet18", "resnet50"),
    "ResNet-D": ("resnet18d",),
    "ResNeXt": ("resnext50_32x4d",),
    "Wide ResNet": ("wide_resnet18_1p5",),
    "MobileNetV1": ("mobilenetv1_070",),
    "MobileNetV2": ("mobilenetv2_050", "mobilenetv2_100"),
    "MobileNetV3": ("mobilenetv3_small_100",),
    "MobileNetV4": ("mobilenetv4_conv_small",),
    "EfficientNet-Lite": ("tf_efficientnet_lite0",),
    "CIFAR ResNet": ("resnet20_cifar",),
    "CIFAR MobileNet": ("mobilenetv2_100_cifar",),
    "HA-CNN": ("hacnn",),
    "R3D": ("r3d_18",),
    "R(2+1)D": ("r2plus1d_18",),
    "volumes": ("resnet18_volume",),
}
SHORTER = {name: {"layers": (1, 1, 1, 1)} for name in ("resnet18", "resnet18d", "resnet50", "resnext50_32x4d")}
SHORTER |= {
    name: {"layers": (1, 1, 1, 1)} for name in ("wide_resnet18_1p5", "r3d_18", "r2plus1d_18", "resnet18_volume")
}
SHORTER |= {"resnet20_cifar": {"layers": (1, 1, 1)}}
"""One block a stage where the network can be built so: a tool does not care how often it meets the same block."""
NEEDS = {"smp": ("segmentation_models_pytorch",), "torchao": ("torchao",), "onnx": ("onnxruntime", "onnxscript")}
"""Packages besides those of the zoo, by the first word of a tool's name."""
PASSES, FAILS, AS_PLAIN = "passes", "fails", "as plain"
PLAIN = "plain"
"""What stands for the attention of a plain network."""


def networks() -> list[tuple[str, Variant]]:
    """Families and networks with attention: the first attention of each family, then the second ..."""
    found: dict[str, dict[str | None, Variant]] = {family: {} for family in FAMILIES}
    for family, backbones in FAMILIES.items():
        for backbone in backbones:
            for variant in (v for v in VARIANTS if v.backbone == backbone and (v.attention or not placed(v))):
                found[family].setdefault(variant.attention, variant)
    ranked = [(rank, family, v) for family, own in found.items() for rank, v in enumerate(own.values())]
    return [(family, variant) for _, family, variant in sorted(ranked, key=lambda row: row[0])]


def placed(variant: Variant) -> bool:
    """Whether attention is put into the backbone, which then is the plain network; HA-CNN has its own."""
    return bool(BACKBONES[variant.backbone].placements)


def installed(tool: str) -> bool:
    """Whether the packages that a tool needs are there."""
    return all(find_spec(package) for package in NEEDS.get(tool.partition(":")[0], ()))


def fault(tool: Tool, make: Make) -> str:
    """What is wrong with the tool on this network, in a line; empty if it works."""
    torch.manual_seed(0)
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nothing,
        redirect_stdout(nothing),
        redirect_stderr(nothing),
    ):
        warnings.simplefilter("ignore")  # of tools that are old
        try:
            tool(make, make.inputs())
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def measure(family: str, variant: Variant, plain: dict[str, str], tools: dict[str, Tool]) -> list[dict[str, str]]:
    """The rows of a network; `plain` holds what is wrong with each tool on the plain one."""
    make = Make(variant.name, **SHORTER.get(variant.backbone, {}))
    rows = []
    for name, tool in tools.items():
        wrong = fault(tool, make)
        result = PASSES if not wrong else AS_PLAIN if plain.get(name) else FAILS
        rows.append(row_of(family, variant.attention or "own", variant.name, name, result, wrong))
    return rows


def measure_plain(family: str, backbone: str, tools: dict[str, Tool]) -> list[dict[str, str]]:
    """The rows of a plain network."""
    make = Make(backbone, **SHORTER.get(backbone, {}))
    faults = {name: fault(tool, make) for name, tool in tools.items()}
    return [row_of(family, PLAIN, backbone, name, FAILS if wrong else PASSES, wrong) for name, wrong in faults.items()]


def row_of(family: str, attention: str, network: str, tool: str, result: str, fault: str) -> dict[str, str]:
    """A row of the CSV file."""
    return dict(family=family, attention=attention, network=network, tool=tool, result=result, fault=fault)


def table(rows: list[dict[str, str]]) -> str:
    """Which tools work on all networks, and where the others fail."""
    gated = [row for row in rows if row["attention"] != PLAIN]
    missing = len(networks()) - len({row["network"] for row in gated})
    tools = list(dict.fromkeys(row["tool"] for row in gated))
    whole = [tool for tool in tools if all(row["result"] == PASSES for row in gated if row["tool"] == tool)]
    by_package: dict[str, list[str]] = {}
    for tool in whole:
        package, _, name = tool.partition(": ")
        by_package.setdefault(package, []).append(f"`{name}`")
    listed = [f"- {package}: {', '.join(names)}" for package, names in by_package.items()]
    lines = [textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False) for line in listed]
    lines += ["", "| fails | with these gates | on the plain network, too |", "|---|---|---|"]
    for tool in (tool for tool in tools if tool not in whole):
        lines.append(f"| {tool} | {_where(gated, tool, FAILS) or '-'} | {_where(gated, tool, AS_PLAIN) or '-'} |")
    said = f"{len(tools)} tools on {len({row['network'] for row in gated})} networks"
    unfinished = f"; {missing} networks are not there yet" if missing else ""
    return "\n".join([f"These work on all of them ({said}{unfinished}):", "", *lines])


def _where(rows: list[dict[str, str]], tool: str, result: str) -> str:
    """Families, and of each the attentions unless it is all of them."""
    found = []
    for family in FAMILIES:
        mine = [row for row in rows if (row["family"], row["tool"]) == (family, tool)]
        failing = [row["attention"] for row in mine if row["result"] == result]
        if failing:
            found.append(family if len(failing) == len(mine) else f"{family} ({', '.join(failing)})")
    return "all" if len(found) == len(FAMILIES) and "(" not in "".join(found) else "; ".join(found)


def main() -> int:
    """Run what is missing, or what is asked for; the exit code is 1 if a tool that was asked for fails on a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="names or patterns; default all")
    parser.add_argument("--tools", nargs="+", default=[], metavar="PART", help="tools with one of these in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tools = {name: tool for name, tool in TOOLS.items() if installed(name)}
    asked = bool(options.names or options.tools)
    if options.tools:
        tools = {name: tool for name, tool in tools.items() if any(part in name for part in options.tools)}
    rows = [] if asked or not TABLE.exists() else read_rows(TABLE)[1]
    for family, variant in networks():
        if not any(fnmatch.fnmatch(variant.name, name) for name in options.names or "*"):
            continue
        start, there = time.monotonic(), {row["network"] for row in rows}
        if placed(variant) and variant.backbone not in there:
            rows += measure_plain(family, variant.backbone, tools)
        if variant.name not in there:
            plain = {row["tool"]: row["fault"] for row in rows if row["network"] == variant.backbone}
            new = measure(family, variant, plain, tools)
            for row in new:
                if asked or row["result"] == FAILS:
                    print(f"{variant.name}, {row['tool']}: {row['result']}  {row['fault']}")
            print(f"{variant.name}: {time.monotonic() - start:.0f} s", flush=True)
            rows += new
        if rows and not asked:
            write_rows(TABLE, conditions(), rows)
    return int(asked and any(row["result"] == FAILS and row["attention"] != PLAIN for row in rows))


def conditions() -> str:
    """Versions of what was used."""
    packages = ("torch", "torchvision", "timm", "torchao", "onnxruntime", "segmentation_models_pytorch")
    found = [f"{package} {version(package)}" for package in packages if find_spec(package)]
    return f"{', '.join(found)}, one thread of {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
