"""Write the tables in every README.md, between their markers: `python scripts/readme_tables.py` (20 seconds).

The models' costs are counted, measurements come from the CSV files beside this script, the weights from the manifest.
With `--check` nothing is written, and the exit code is 1 if a table is out of date.
"""

import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import attach_matrix
import attends_table
import cifar100_search
import cifar100_table
import dead_gates
import early_stopping_table
import export_matrix
import int8_table
import kernel_profile
import kernel_targets
import latency_table
import neutral_table
import timm
import tools_matrix
import train_speed
import volume_table
import warm_start_table
from measured import read_rows

from zoo.attention import (
    BAM,
    CBAM,
    Attention,
    CoordAttention,
    ScSE,
    SoftAttention,
    SqueezeExcite,
    TripletAttention,
)
from zoo.bench.table import read
from zoo.inference.seeds import spread
from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.counts import read_counts
from zoo.models.macs import cost
from zoo.models.plain_network import plain_network
from zoo.models.variants import VARIANTS
from zoo.weights.manifest import read_manifest

ROOT = Path(__file__).parents[1]
FINETUNING = {
    "MobileNetV2": Path(__file__).with_name("finetune_table.csv"),
    "EfficientNet-Lite0": Path(__file__).with_name("finetune_table_tf_efficientnet_lite0.csv"),
}
BEFORE_AFTER = Path(__file__).with_name("before_after.csv")
SPEEDS = Path(__file__).with_name("bench.csv")


def cost_cell(name: str) -> str:
    """Parameters in millions and multiply-accumulates in billions."""
    params, multiply_accumulates = cost(name)
    return f"{params / 1e6:.3f} / {multiply_accumulates / 1e9:.4f}"


MAIN = ("se", "cbam", "bam")


def models() -> str:
    """A row a backbone, a column for each of the attentions that most of them have."""
    names = {variant.name for variant in VARIANTS}
    lines = ["| backbone | plain | `se_` | `cbam_` | `bam_` | warm start from |", "|---|---|---|---|---|---|"]
    for backbone, row in BACKBONES.items():
        cells = [backbone, *(f"{attention}_{backbone}" for attention in MAIN)]
        shown = [cost_cell(name) if name in names or timm.is_model(name) else "-" for name in cells]
        source = "your own file"
        if row.tag:
            source = f"`timm/{backbone}.{row.tag}`" if row.dims == 2 else "torchvision's Kinetics-400 weights"
        lines.append(f"| `{backbone}` | {' | '.join(shown)} | {source if row.placements else '-'} |")
    return "\n".join(lines)


def more() -> str:
    """The other attentions: a row each, a column a backbone."""
    names = {variant.name for variant in VARIANTS}
    others = [name for name in ATTENTIONS if name not in (*MAIN, "bam_mul", "spatial")]
    backbones = [b for b in BACKBONES if any(f"{attention}_{b}" in names for attention in others)]
    lines = [f"| | {' | '.join(f'`{b}`' for b in backbones)} |", "|---" * (1 + len(backbones)) + "|"]
    for attention in others:
        found = [f"{attention}_{b}" for b in backbones]
        cells = [cost_cell(name) if name in names else "-" for name in found]
        lines.append(f"| `{attention}_` | {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Forms:
    """A gate in both forms: what `y` is, with `a`, `b` and `c` what its sigmoids are taken of."""

    name: str
    module: Callable[..., Attention]
    published: str
    neutral: str


FORMS = (
    Forms("SE, ECA, one gate of CBAM", SqueezeExcite, "x * sigmoid(a)", "x * 2 * sigmoid(a)"),
    Forms("CBAM", CBAM, "x * sigmoid(a) * sigmoid(b)", "x * 2 * sigmoid(a) * 2 * sigmoid(b)"),
    Forms("BAM", BAM, "x * (1 + sigmoid(a + b))", "x * (1 + tanh((a + b) / 2) / 3)"),
    Forms("coordinate", CoordAttention, "x * sigmoid(a) * sigmoid(b)", "x * 2 * sigmoid(a) * 2 * sigmoid(b)"),
    Forms("scSE", ScSE, "x * (sigmoid(a) + sigmoid(b))", "x * (sigmoid(a) + sigmoid(b))"),
    Forms(
        'scSE, `fuse="max"`',
        partial(ScSE, fuse="max"),
        "maximum(x * sigmoid(a), x * sigmoid(b))",
        "maximum(x * 2 * sigmoid(a), x * 2 * sigmoid(b))",
    ),
    Forms(
        'scSE, `fuse="mul"`',
        partial(ScSE, fuse="mul"),
        "x * sigmoid(a) * sigmoid(b)",
        "x * 2 * sigmoid(a) * 2 * sigmoid(b)",
    ),
    Forms(
        "triplet",
        TripletAttention,
        "x * (sigmoid(a) + sigmoid(b) + sigmoid(c)) / 3",
        "x * (sigmoid(a) + sigmoid(b) + sigmoid(c)) / 1.5",
    ),
    Forms("HA, soft", SoftAttention, "x * sigmoid(relu(a))", "x * 4 / 3 * sigmoid(relu(a))"),
)


def forms() -> str:
    """Both forms of each gate, and the constant that lies between them."""
    lines = ["| | `y`, published | starts as `x` times | `y`, neutral |", "|---" * 4 + "|"]
    for row in FORMS:
        constant = row.module(64).make_constant()
        lines.append(f"| {row.name} | `{row.published}` | {constant:.4g} | `{row.neutral}` |")
    return "\n".join(lines)


def speeds() -> str:
    """Time relative to the plain network and images a second, by what was done and in which precision."""
    rows = [row for row in read(SPEEDS) if row["beside"] == plain_network(row["model"], weights="none")]
    columns = [(mode, dtype) for mode in ("infer", "train") for dtype in ("fp32", "bf16")]
    heads = [f"{'inference' if mode == 'infer' else 'training'}, {dtype}" for mode, dtype in columns]
    lines = [f"| | network | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for model, batch, size in dict.fromkeys((row["model"], row["batch"], row["size"]) for row in rows):
        own = [row for row in rows if (row["model"], row["batch"], row["size"]) == (model, batch, size)]
        for network, form in dict.fromkeys((row["network"], row["form"]) for row in own):
            there = {(r["mode"], r["dtype"]): r for r in own if (r["network"], r["form"]) == (network, form)}
            cells = [_speed(there.get(column)) for column in columns]
            name = f"`{network}`" if form == "eager" else f"`{network}`, {form}"
            lines.append(f"| `{model}`, {batch} of {size} | {name} | {' | '.join(cells)} |")
    how = dict.fromkeys(f"{row['hardware']}, {row['threads']} thread; {row['software']}" for row in rows)
    times = "time beside the plain network, median [quartiles] of the rounds; images a second"
    return "\n".join([*lines, "", f"({times}. {' | '.join(how)}; {rows[0]['layout']}.)"])


def _speed(row: dict[str, str] | None) -> str:
    if row is None:
        return "-"
    ratio, low, high = (float(row[key]) for key in ("ratio", "ratio_q1", "ratio_q3"))
    beside = "1" if ratio == low == high == 1 else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    return f"{beside}; {float(row['img_per_s']):.1f}"


def weights() -> str:
    """A row for each file of weights, by the names that load it."""
    lines = ["| name | top-1, % | measured on | n | seeds | MB | licence | where |", "|---" * 8 + "|"]
    counts = read_counts()
    for row in read_manifest():
        starts = [f"`{each.model}.{each.warm}`" for each in counts if each.starts_from(row.model, row.tag)]
        names = ", ".join([f"`{row.name}`", *starts])
        result = row.result
        seeds = len(result.get("top1_of_seeds", {})) or 1
        score = f"{result['top1']:.2f}" if "top1" in result else "-"
        measured_on = (result.get("data") or row.recipe.get("data", "-"), result.get("n", "-"))
        where = f"`{row.hub}`" if row.hub else "in the package"
        known = (names, score, *measured_on, seeds if result else "-", f"{row.bytes / 1e6:.1f}", row.license, where)
        lines.append(f"| {' | '.join(map(str, known))} |")
    return "\n".join(lines)


SPEED_OF_A_GPU = 2470 / (1218 / 972)
"""Images a second: ResNet-50's in training at 224 pixels on an A100 (NVIDIA DeepLearningExamples, ResNet-50 v1.5, AMP),
divided by what SE costs in timm's training benchmark (1218 against 972, RTX 3090, NHWC, AMP)."""
SPEED_OF_A_CORE = 700
"""Images a second decoded and augmented; `python scripts/bench_loader.py` on images of 27 KB (scripts/README.md)."""
LARGE_SETS = {
    # name: (images, epochs, GPUs, KB an image)
    "ImageNet-1k, 100 epochs": (1.28e6, 100, 8, 27),
    "ImageNet-21k, 90 epochs": (14.2e6, 90, 64, 27),
    "LAION-400M, 5 epochs": (400e6, 5, 64, 27),
    "LAION-2B, 1 epoch": (2e9, 1, 128, 27),
}


def further() -> str:
    """Hours and bandwidth by arithmetic, for sets that nobody has trained on here."""
    lines = ["| set | GPUs | hours | images, GB/s | cores for decoding |", "|---|---|---|---|---|"]
    for name, (images, epochs, gpus, kilobytes) in LARGE_SETS.items():
        speed = gpus * SPEED_OF_A_GPU
        hours = images * epochs / speed / 3600
        lines.append(
            f"| {name} | {gpus} | {hours:.1f} | {speed * kilobytes / 1e6:.1f} | {speed / SPEED_OF_A_CORE:.0f} |"
        )
    return "\n".join(lines)


def measured(script: Any, said: str = "") -> str:
    """The table of a script, and below it what is to be said of it and the conditions it was measured in."""
    conditions, rows = read_rows(script.TABLE)
    return f"{script.table(rows)}\n\n({said + '; ' if said else ''}{conditions}.)"


NEUTRAL = (
    "mean ± standard deviation of 3 seeds, number of seeds in brackets where not all are run; differences in points, "
    "in bold beyond two standard deviations"
)
SEARCH = "one seed, 12 epochs; ± 1.96 standard errors of the images judged; seconds of two processors"
CIFAR = (
    "n = 10000 test images, last epoch; mean ± standard deviation of the seeds; gains beside seeds of the same way; "
    "hours of the processors that the table's file names, so not to be compared: `kernel_targets.csv` is for that"
)
ALIVE = "one seed, 12 epochs; n = 5000 images held out of the training images; bf16, compiled"
ATTENDS = "mean ± standard deviation of the seeds, number of seeds in brackets where not all 3 are run"
TARGETS = "time beside what it is compared with, median of rounds in turns and quartiles; * misses its target"


def attached() -> str:
    """What scripts/attach_matrix.py measured."""
    conditions, rows = read_rows(attach_matrix.TABLE)
    networks, families = ({row[key] for row in rows} for key in ("network", "family"))
    said = f"{len(networks)} networks of {len(families)} families, each with SE, CBAM and BAM behind its stages"
    return f"{attach_matrix.table(rows)}\n\n({said}; {conditions}.)"


def quantised() -> str:
    """What scripts/int8_table.py measured."""
    conditions, rows = read_rows(int8_table.TABLE)
    n, calibrated = rows[0]["n"], rows[0]["calibrated"]
    said = f"n = {n} ImageNet images, likely training images of these weights; {calibrated} others to calibrate"
    return f"{int8_table.table(rows)}\n\n({said}; {conditions}, CPU with VNNI.)"


def latency() -> str:
    """What scripts/latency_table.py measured."""
    conditions, rows = read_rows(latency_table.TABLE)
    accuracy = read_rows(int8_table.TABLE)[1]
    n = accuracy[0]["n"]
    said = (
        "images a second, of one thread by the seconds that it computed, of two by the clock; behind them the time "
        f"beside eager, median [quartiles] of rounds in turns; top-1: real weights, n={n}"
    )
    return f"{latency_table.table(rows, accuracy)}\n\n({said}; {conditions}.)"


def finetuning() -> str:
    """Mean and standard deviation over the seeds of each network."""
    lines, notes = [], []
    for backbone, path in FINETUNING.items():
        conditions, runs = read_rows(path)
        sizes = {run["data"]: run["n"] for run in runs}
        if not lines:
            heads = [f"{name} (n = {n})" for name, n in sizes.items()]
            lines = [
                f"| network | gates | {' | '.join(heads)} | seconds, the fastest run |",
                "|---" * (len(sizes) + 3) + "|",
            ]
        for network in dict.fromkeys(run["network"] for run in runs):
            mine = [[run for run in runs if run["network"] == network and run["data"] == name] for name in sizes]
            cells = [spread([float(run["top1"]) for run in own]) for own in mine]
            seconds = [f"{min(float(run['seconds']) for run in own):.0f}" for own in mine]
            lines.append(f"| {backbone} | {network} | {' | '.join(cells)} | {', '.join(seconds)} |")
        notes.append(f"{backbone}: {len({run['seed'] for run in runs})} seeds, {conditions}")
    return "\n".join([*lines, "", f"(top-1 in percent, mean ± standard deviation; {'; '.join(notes)}.)"])


def before() -> str:
    """What a trained network still knows with gates put in: the runs of scripts/before_after.py."""
    conditions, rows = read_rows(BEFORE_AFTER)
    ways = {
        "plain": "the plain network",
        "timm": 'timm\'s `attn_layer="{}"`, random gates',
        "zoo": "`zoo.warm_start`, {}",
    }
    titles = {"cbam": "CBAM", "se": "SE"}
    lines = ["| | cosine with the plain logits | largest difference | top-1, % |", "|---|---|---|---|"]
    for way, attention in dict.fromkeys((row["gates"], row["attention"]) for row in rows):
        mine = [row for row in rows if (row["gates"], row["attention"]) == (way, attention)]
        words = ways[way].format(attention if way == "timm" else titles.get(attention))
        cosines = [float(row["cosine"]) for row in mine]
        largest = max(float(row["largest_difference"]) for row in mine)
        cosine = "1" if largest == 0 else f"{statistics.mean(cosines):.2f} ± {statistics.stdev(cosines):.2f}"
        lines.append(f"| {words} | {cosine} | {largest:.2g} | {spread([float(row['top1']) for row in mine])} |")
    seeds, n = len({row["seed"] for row in rows}), rows[0]["n"]
    said = f"(mean ± standard deviation of {seeds} seeds, n = {n} held-out digits; {conditions};"
    return "\n".join([*lines, "", said, "`python scripts/before_after.py`, 2 minutes on a CPU core, no download.)"])


INSIGHT = "[one recipe](https://github.com/implus/PytorchInsight)"
CHOICE = (
    # what for, model, why; our own figures are put in from their files
    ("photographs", "cbam_resnet50", f"ImageNet top-1 by {INSIGHT}: 77.63 %; SE 77.18, BAM 76.90, plain 76.38"),
    ("photographs, deeper", "se_resnet101", f"by {INSIGHT}: 78.47 %; CBAM 78.35, BAM 78.22, plain 78.20"),
    (
        "few photographs, a CPU",
        "cbam_mobilenetv2_100",
        "fine-tuned here: {flowers12, CBAM, warm} % on flowers, plain {flowers12, plain};"
        " {ants_bees, CBAM, warm} on ants and bees, plain {ants_bees, plain}",
    ),
    (
        "images of 32 pixels",
        "cbam_resnet20_cifar",
        "trained here for 6 epochs: {ResNet-20, 6 epochs, CBAM, neutral} %, plain {ResNet-20, 6 epochs, plain};"
        " for 20: {ResNet-20, 20 epochs, CBAM, neutral}, plain {ResNet-20, 20 epochs, plain}",
    ),
    (
        "volumes",
        "resnet18_volume",
        "plain, as no gain was shown here: {ResNet-18 for volumes, 16 epochs, plain} %,"
        " CBAM {ResNet-18 for volumes, 16 epochs, CBAM, neutral}",
    ),
)


def choice() -> str:
    """A model for each of five uses, with what speaks for it."""
    figures: dict[str, list[float]] = {}
    for run in read_rows(FINETUNING["MobileNetV2"])[1]:
        figures.setdefault(f"{run['data']}, {run['network']}", []).append(float(run["top1"]))
    for run in read_rows(neutral_table.TABLE)[1]:
        about = ", ".join(filter(None, (run["setting"], run["network"], run["form"])))
        figures.setdefault(about, []).append(float(run["top1"]))
    lines = ["| for | model | parameters, M / GMACs | why (top-1) |", "|---" * 4 + "|"]
    for use, model, why in CHOICE:
        said = re.sub(r"{(.*?)}", lambda found: spread(figures[found[1]]), why)
        lines.append(f"| {use} | `{model}` | {cost_cell(model)} | {said} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "before": before,
    "choice": choice,
    "models": models,
    "more": more,
    "forms": forms,
    "speeds": speeds,
    "weights": weights,
    "volumes": partial(measured, volume_table, "mean ± standard deviation over the seeds"),
    "neutral": partial(measured, neutral_table, NEUTRAL),
    "attends": partial(measured, attends_table, ATTENDS),
    "search": partial(measured, cifar100_search, SEARCH),
    "alive": partial(measured, dead_gates, ALIVE),
    "cifar": partial(measured, cifar100_table, CIFAR),
    "early": partial(measured, early_stopping_table, "mean ± standard deviation of 3 seeds"),
    "warm": partial(measured, warm_start_table),
    "attached": attached,
    "exports": partial(measured, export_matrix),
    "quantised": quantised,
    "tools": partial(measured, tools_matrix),
    "further": further,
    "finetuning": finetuning,
    "latency": latency,
    "targets": partial(measured, kernel_targets, TARGETS),
    "training": partial(
        measured, train_speed, "images a second of `zoo train`, in brackets the time beside the plain network's"
    ),
    "profile": partial(measured, kernel_profile, "milliseconds of a step, more than the plain network's"),
}


MARKED = re.compile(r"(<!-- (\w+): python scripts/readme_tables.py -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def main() -> int:
    """Write or check. Raises KeyError for a marker without a table."""
    readmes = [ROOT / "README.md", *ROOT.glob("zoo/**/README.md"), *ROOT.glob("scripts/README.md")]
    texts = {readme: readme.read_text(encoding="utf-8") for readme in readmes}
    if missing := set(TABLES) - {name for text in texts.values() for _, name, _ in MARKED.findall(text)}:
        raise SystemExit(f"no README.md has the markers of {', '.join(sorted(missing))}")
    new = {
        readme: MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)
        for readme, text in texts.items()
    }
    if "--check" in sys.argv:
        return int(new != texts)
    for readme, text in new.items():
        if text != texts[readme]:
            readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
