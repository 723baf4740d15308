"""The ablations of CBAM's and BAM's papers on CIFAR-100: every row of scripts/ablations.md, on one backbone.

    PYTHONPATH=.:scripts python scripts/gpu/ablation.py --data FOLDER --minutes 8.5

Call it again until it exits with 0. By default ResNet-50 by the papers' 300 epochs; `--backbone resnet20 --recipe
configs/cifar100_{backbone}_short.toml` is the cheapest. The table has a row for each row of the papers' tables; rows
that are one network share its runs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations import networks, run_name
from fleet import RECIPES, Network, Planned, arguments, checked, work
from tables import RESULTS

from zoo.training.recipe import RecipeError


def wanted(backbone: str, recipe: str, names: Sequence[str]) -> list[Network]:
    """Each network once, or those of `names`. Raises RecipeError."""
    source = Path(recipe.format(backbone=RECIPES.get(backbone, backbone)))
    found: dict[str, Network] = {}
    for _, row, model in networks(f"{backbone}_cifar"):
        name = run_name(model, row.attn_kwargs)
        found[name] = Network(name, model, source, row.attn_kwargs)
    if unknown := set(names) - set(found):
        raise RecipeError(f"no row has the network {min(unknown)}; there are {', '.join(found)}")
    return [network for name, network in found.items() if name in names or not names]


def rows_of_the_papers(backbone: str, of_networks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """From a row a network to a row of the papers' tables each, with the paper's error beside ours."""
    measured = {row["model"]: row for row in of_networks}
    rows = []
    for table, row, model in networks(f"{backbone}_cifar"):
        if found := measured.get(run_name(model, row.attn_kwargs)):
            mean = found["top1_mean"]
            error = mean if mean == "not yet run" else f"{100 - float(mean):.2f}"
            names = {"table": table.title, "row": row.label, "error_mean": error}
            rows.append(names | found | {"paper_imagenet_errors": row.published, "paper_source": row.source})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Carry on with the runs, and print the table."""
    recipe = "configs/cifar100_{backbone}_300.toml"
    parser = arguments(__doc__, recipe, "runs/ablation", RESULTS / "ablation.csv")
    parser.add_argument("--backbone", default="resnet50", metavar="NAME", help="without _cifar")
    parser.add_argument("--networks", nargs="+", default=(), metavar="NAME", help="some, as the table names them")
    options = parser.parse_args(argv)

    def finish(runs: Sequence[Planned], rows: list[dict[str, Any]]) -> Sequence[str]:
        rows[:] = rows_of_the_papers(options.backbone, rows)
        return ("table", "row", "error_mean", "top1_sd", "runs", "parameters", "paper_imagenet_errors")

    def job() -> int:
        networks = wanted(options.backbone, options.recipe, options.networks)
        return work(argv, options, networks, lambda run: None, finish)

    return checked(job)


if __name__ == "__main__":
    sys.exit(main())
