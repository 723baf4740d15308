"""Write scripts/ablations.md, the papers' ablations as switches of the zoo: `python scripts/ablations.py` (10 seconds).

Parameters and multiply-accumulates are counted here; errors are the papers', with where we have them from, and those of
scripts/ablation_runs.csv. With `--check` nothing is written, and the exit code is 1 if the page is out of date.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
from measured import read_rows

from zoo.data.input_spec import input_spec
from zoo.inference.seeds import spread
from zoo.models.build import attention_options
from zoo.models.macs import macs, parameter_count
from zoo.models.variants import VARIANTS

PAGE = Path(__file__).with_name("ablations.md")
RUNS = Path(__file__).with_name("ablation_runs.csv")
NEUTRAL = Path(__file__).with_name("neutral_table.csv")
"""Has the plain network by the same recipe and the versions of the neutral form's runs, which came later."""
FORMS = ("neutral", "published")
"""Of the gates: divided by the constant they start near, the catalogue's default, and as their papers have them."""


@dataclass(frozen=True)
class Row:
    """A line of one of the tables."""

    label: str
    attn_kwargs: Mapping[str, Any] = field(default_factory=dict)
    published: str = "-"
    """The paper's top-1 / top-5 error in percent."""
    source: str = "-"
    model: str = ""
    """Where it is not the table's."""

    @property
    def is_plain(self) -> bool:
        return self.model == "resnet50"


@dataclass(frozen=True)
class Table:
    """One ablation of a paper."""

    title: str
    model: str
    rows: tuple[Row, ...]


RECALLED, TRANSCRIBED = "[R]", "[T]"
CHANNEL = {"arrangement": "channel"}
TABLES = (
    Table(
        "CBAM, Table 1: the summary of the channel gate",
        "cbam_resnet50",
        (
            Row("none (the plain network)", published="24.56 / 7.50", source=TRANSCRIBED, model="resnet50"),
            Row("mean (SE)", {**CHANNEL, "channel_pool": "avg"}, "23.14 / 6.70", TRANSCRIBED),
            Row("maximum", {**CHANNEL, "channel_pool": "max"}, "23.20 / 6.83", RECALLED),
            Row("mean and maximum", CHANNEL, "22.80 / 6.52", TRANSCRIBED),
        ),
    ),
    Table(
        "CBAM, Table 2: the summary of the spatial gate, behind the channel gate",
        "cbam_resnet50",
        (
            Row("no spatial gate", CHANNEL, "22.80 / 6.52", TRANSCRIBED),
            Row("1x1 convolution, k = 3", {"spatial_pool": "conv", "kernel_size": 3}, "22.96 / 6.64", RECALLED),
            Row("1x1 convolution, k = 7", {"spatial_pool": "conv"}, "22.90 / 6.47", RECALLED),
            Row("mean and maximum, k = 3", {"kernel_size": 3}, "22.68 / 6.41", RECALLED),
            Row("mean and maximum, k = 7", published="22.66 / 6.31", source=TRANSCRIBED),
            Row("mean, k = 7", {"spatial_pool": "avg"}),
            Row("maximum, k = 7", {"spatial_pool": "max"}),
        ),
    ),
    Table(
        "CBAM, Table 3: the order of the gates",
        "cbam_resnet50",
        (
            Row("SE", published="23.14 / 6.70", source=TRANSCRIBED, model="se_resnet50"),
            Row("channel, then spatial", published="22.66 / 6.31", source=TRANSCRIBED),
            Row("spatial, then channel", {"arrangement": "spatial_channel"}, "22.78 / 6.42", RECALLED),
            Row("parallel", {"arrangement": "parallel"}, "22.95 / 6.59", RECALLED),
            Row("spatial alone", {"arrangement": "spatial"}),
        ),
    ),
    Table(
        "BAM: dilation",
        "bam_resnet50_cifar",
        tuple(Row(str(dilation), {"dilation": dilation}) for dilation in (1, 2, 4, 6)),
    ),
    Table(
        "BAM: reduction",
        "bam_resnet50_cifar",
        tuple(Row(str(reduction), {"reduction": reduction}) for reduction in (4, 8, 16, 32)),
    ),
    Table(
        "BAM: branches, and how they are joined",
        "bam_resnet50_cifar",
        (
            Row("channel alone", {"branches": "channel"}),
            Row("spatial alone", {"branches": "spatial"}),
            Row("both, maximum", {"fuse": "max"}),
            Row("both, product", {"fuse": "mul"}),
            Row("both, sum", published="the best of the three", source="[V]"),
        ),
    ),
    Table(
        "BAM: place",
        "bam_resnet50_cifar",
        (
            Row("in front of the stride", {"place": "before"}),
            Row("right behind it", {"place": "after"}),
        ),
    ),
)

INTRODUCTION = """# The papers' ablations

Each row is a model of this zoo: `timm.create_model(model, attn_kwargs=...)`. Written by `python scripts/ablations.py`.

Parameters in millions; GMACs of convolutions and linear layers at the model's input size, with timm's stride in the
3x3 convolution (the papers have it in the 1x1 in front, which gives 3.858 for the plain ResNet-50). Errors are top-1 /
top-5 in percent on ImageNet, by their papers and not by us. Where we have them from: [V] read in the named source,
[T] top-1 read in a second-hand transcription of the paper's table and top-5 recalled, [R] both recalled and not found
in any copy that we could read. BAM's ablations were run on CIFAR-100; we found none of their figures, only that the sum
was the best of three ways to join the branches (an issue of the authors' repository quotes the paper's Table 2(b)).

The last two columns are short runs of ours, in the neutral form of the gates and in the published one: top-1 error in
percent of ResNet-20 with the row's switches on the first ten classes of CIFAR-100, which is small enough for a CPU
(5000 images, 6 epochs, n = 1000; mean and standard deviation of the seeds, 3 where nothing is said; {conditions}).
By `python scripts/ablation_runs.py DATA`.

{verdict}
These are fewer than 500 updates from random weights, and say nothing of a long training.
"""


def networks(backbone: str) -> Iterator[tuple[Table, Row, str]]:
    """Every row of every table, and its network on `backbone`: cbam_resnet50 becomes cbam_BACKBONE."""
    for table in TABLES:
        for row in table.rows:
            attention = re.match("(se|cbam|bam)_", row.model or table.model)
            yield table, row, f"{attention[0] if attention else ''}{backbone}"


def run_name(model: str, attn_kwargs: Mapping[str, Any]) -> str:
    """The network in one word: rows of several tables that are one network have one name, and one run."""
    usual = next((attention_options(variant) for variant in VARIANTS if variant.name == model), {})
    changed = {key: value for key, value in sorted(attn_kwargs.items()) if value != usual[key]}
    return "-".join([model, *(f"{key}={value}" for key, value in changed.items())])


Errors = Mapping[tuple[str, str, str], Sequence[float]]
"""Top-1 errors in percent of the seeds, by table, row and form ("" of the plain network)."""


def short_runs() -> tuple[str, Errors]:
    """Conditions, and the errors, of scripts/ablation_runs.csv; of the plain network beside neutral gates NEUTRAL's."""
    conditions, runs = read_rows(RUNS)
    errors: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        errors.setdefault((run["table"], run["row"], run["form"]), []).append(100 - float(run["top1"]))
    versions = sorted({run["torch"] for run in runs})
    later = [
        100 - float(run["top1"])
        for run in read_rows(NEUTRAL)[1]
        if (run["setting"], run["network"], run["form"]) == ("ResNet-20, 6 epochs", "plain", "")
    ]
    errors |= {(table.title, row.label, "neutral"): later for table in TABLES for row in table.rows if row.is_plain}
    return f"torch {' and '.join(versions)}, {conditions}", errors


def verdict(errors: Errors, form: str) -> str:
    """What the short runs show: rows of a table against the spread between seeds, and attentions against none."""
    attended = {table.title: [row for row in table.rows if not row.is_plain] for table in TABLES}
    if any(len(errors.get((title, row.label, form), ())) < 3 for title, rows in attended.items() for row in rows):
        return f"In the {form} form not all is run yet."
    apart, against = [], {"gates in each block (SE, CBAM)": [], "BAM in front of the strides or behind them": []}
    of_form = form if form == "neutral" else ""
    (plain,) = (mean(errors[t.title, row.label, of_form]) for t in TABLES for row in t.rows if row.is_plain)
    for table in TABLES:
        rows = [errors[table.title, row.label, form] for row in attended[table.title]]
        means = [mean(row) for row in rows]
        if max(means) - min(means) > 2 * max(map(stdev, rows)):
            apart.append(f'"{table.title}"')
        few, many = against.values()
        (many if table.model.startswith("bam") else few).extend(value - plain for value in means)
    between = "in no table" if not apart else f"in {', '.join(apart)} alone"
    differences = "; ".join(f"{name} {min(values):+.1f} to {max(values):+.1f}" for name, values in against.items())
    return (
        f"In the {form} form means differ by more than twice the largest deviation between seeds {between}.\n"
        f"Against the plain network's {plain:.2f}, in points:\n{differences}."
    )


def short_cell(values: Sequence[float]) -> str:
    """Mean and deviation; fewer than three seeds are said."""
    return f"{spread(values)}{f' ({len(values)})' if len(values) < 3 else ''}" if values else "not yet run"


def cells(table: Table, row: Row, errors: Errors) -> tuple[str, ...]:
    """A row of the page."""
    name = row.model or table.model
    kwargs: dict[str, Any] = {"attn_kwargs": dict(row.attn_kwargs)} if row.attn_kwargs else {}
    with torch.device("meta"):
        model: Any = timm.create_model(name, **kwargs)
    switches = ", ".join(f"{key}={value!r}" for key, value in row.attn_kwargs.items())
    call = f"`{name}`" + (f" `{switches}`" if switches else "")
    counted = f"{parameter_count(model) / 1e6:.3f}", f"{macs(model, input_spec(model).shape) / 1e9:.4f}"
    plain = errors.get((table.title, row.label, ""), ())
    short = [short_cell(errors.get((table.title, row.label, form), plain)) for form in FORMS]
    return row.label, call, *counted, row.published, row.source, *short


def page() -> str:
    """The whole page."""
    conditions, errors = short_runs()
    verdicts = "\n\n".join(verdict(errors, form) for form in FORMS)
    lines = [INTRODUCTION.format(conditions=conditions, verdict=verdicts)]
    for table in TABLES:
        lines += [
            f"## {table.title}\n",
            "| | model, `attn_kwargs` | parameters | GMACs | paper's errors | source | short, neutral | published |",
        ]
        lines.append("|---" * 8 + "|")
        lines += [f"| {' | '.join(cells(table, row, errors))} |" for row in table.rows]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Write or check."""
    text = page()
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
