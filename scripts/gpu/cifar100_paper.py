"""ResNet-50 and ResNeXt-29 8x64d on CIFAR-100: plain, BAM and CBAM, beside the figures of BAM's paper.

    PYTHONPATH=. python scripts/gpu/cifar100_paper.py --data FOLDER --minutes 8.5

Call it again until it exits with 0. By default the papers' 300 epochs; the short ones are
`--recipe configs/cifar100_{backbone}_short.toml`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet import Planned, arguments, checked, each_attention, work
from tables import RESULTS

BACKBONES = ("resnet50", "resnext29_8x64d")
ATTENTIONS = ("plain", "bam", "cbam")


@dataclass(frozen=True)
class Published:
    """A row of BAM's table on CIFAR-100 (Park et al. 2018, arXiv 1807.06514)."""

    parameters: str
    """Millions, as printed there; the count of the authors' code agrees."""
    error: str
    """Top-1 in percent, recalled: found in no copy that we could read, so check it before you cite it."""


PUBLISHED = {
    "resnet50_cifar": Published("23.71", "21.49"),
    "bam_resnet50_cifar": Published("24.07", "20.00"),
    "resnext29_8x64d_cifar": Published("34.52", "18.18"),
    "bam_resnext29_8x64d_cifar": Published("34.61", "16.71"),
}
"""CBAM has no row there: its ECCV paper has no figures on CIFAR-100."""


def finish(runs: Sequence[Planned], rows: list[dict[str, Any]]) -> Sequence[str]:
    """Errors beside the paper's."""
    for row in rows:
        mean, known = row["top1_mean"], PUBLISHED.get(row["model"])
        row["error_mean"] = mean if mean == "not yet run" else f"{100 - float(mean):.2f}"
        row["paper_error"], row["paper_parameters_m"] = (known.error, known.parameters) if known else ("-", "-")
        row["paper_source"] = "arXiv 1807.06514; error recalled, not read; parameters counted" if known else "-"
    return ("model", "parameters", "runs", "error_mean", "top1_sd", "paper_error", "paper_parameters_m", "seconds")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry on with the runs, and print the table."""
    recipe = "configs/cifar100_{backbone}_300.toml"
    parser = arguments(__doc__, recipe, "runs/cifar100_paper", RESULTS / "cifar100_paper.csv")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME", help="without _cifar")
    parser.add_argument("--attentions", nargs="+", default=ATTENTIONS, metavar="NAME")
    options = parser.parse_args(argv)
    return checked(lambda: work(argv, options, each_attention(options), lambda run: None, finish))


if __name__ == "__main__":
    sys.exit(main())
