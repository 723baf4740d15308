"""The report of several runs: their spread over seeds, and the difference to a baseline, seed by seed."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from zoo.errors import UserError
from zoo.files import write_whole
from zoo.inference.seeds import difference, spread
from zoo.report import figures
from zoo.report.page import read_history
from zoo.report.style import document, figure, scrolling, table
from zoo.training.run_directory import read_facts

FREE = ("seed", "device", "workers")
"""Fields of a recipe in which runs may differ and still be runs of one recipe."""


class ReportError(UserError, ValueError):
    """Runs that cannot be reported together."""


@dataclass(frozen=True)
class Run:
    """What a finished run says."""

    place: Path
    recipe: Mapping[str, Any]
    result: Mapping[str, Any]
    gates: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]

    @property
    def seed(self) -> int:
        return self.recipe["seed"]

    @property
    def top1(self) -> float:
        return self.result["top1"]


def read_run(place: Path) -> Run:
    """Raises ReportError for what is no run, or none that is complete."""
    if not (place / "model" / "config.json").is_file() or not (place / "metrics.csv").is_file():
        raise ReportError(f"{place} is no run that is complete; `zoo train RECIPE --out {place}` makes one")
    facts = read_facts(place)
    return Run(place, facts["recipe"], facts["result"], facts.get("gates", {}), read_history(place))


def write_comparison(ours: Sequence[Path], baseline: Sequence[Path], file: Path) -> Path:
    """Write a page about several runs, and about those of a baseline. Raises ReportError and OSError."""
    runs, plain = [read_run(place) for place in ours], [read_run(place) for place in baseline]
    for group in (runs, plain):
        seeds = [run.seed for run in group]
        if twice := [run for run in group if seeds.count(run.seed) > 1]:
            raise ReportError(f"{twice[-1].place} has the seed {twice[-1].seed} again; seeds must differ")
    title = f"{runs[0].recipe['model']} on {runs[0].recipe['data']}, {len(runs)} runs"
    text = document(title, "\n".join(_sections(title, runs, plain)))
    write_whole(file, lambda beside: beside.write_text(text, encoding="utf-8"))
    return file


def _sections(title: str, runs: Sequence[Run], plain: Sequence[Run]) -> Iterator[str]:
    yield f"<h1>{html.escape(title)}</h1>"
    figure_of = spread([run.top1 for run in runs])
    yield f'<p><span class="big">{figure_of} %</span> top-1, mean and standard deviation of {len(runs)} seeds</p>'
    if plain:
        yield f'<p class="said">{html.escape(said_of(runs, plain))}</p>'
    if differing := _differing([*runs, *plain]):
        rows = [[name, *(str(run.recipe.get(name)) for run in (*runs, *plain))] for name in differing]
        heads = ["field", *(run.place.name for run in (*runs, *plain))]
        yield "<h2>Where the recipes differ</h2>" + scrolling(table(heads, rows), "where the recipes differ")
    curves = {name: [run.history for run in group] for name, group in (("these", runs), ("baseline", plain)) if group}
    yield '<h2>Training</h2><div class="figures">'
    yield figure(figures.svg(figures.seeds(curves), "accuracy of all runs")) + "</div>"
    heads = ["run", "model", "seed", "top-1, %", "n", "epochs", "seconds", "answers that fixed gates change"]
    yield "<h2>Runs</h2>" + scrolling(table(heads, [_row(run) for run in (*runs, *plain)]), "runs")


def said_of(runs: Sequence[Run], plain: Sequence[Run]) -> str:
    """The difference to the baseline, and whether it is lost in the spread of the seeds."""
    by_seed = {run.seed: run.top1 for run in plain}
    pairs = [run.top1 - by_seed[run.seed] for run in runs if run.seed in by_seed]
    ours, theirs = [run.top1 for run in runs], list(by_seed.values())
    words = f"Baseline {plain[0].recipe['model']}: {spread(theirs)} %. Difference of the means: "
    if len(ours) > 1:
        gain, lost = difference(ours, theirs)
        words += f"{gain:+.2f} points" + (
            ", less than one standard deviation between seeds: none was shown" if lost else ""
        )
    else:
        words += f"{mean(ours) - mean(theirs):+.2f} points of one run, whose spread nobody knows"
    if len(pairs) > 1:
        words += f". Seed by seed: {mean(pairs):+.2f} ± {stdev(pairs):.2f} points over {len(pairs)} pairs"
    return words + "."


def _differing(runs: Sequence[Run]) -> list[str]:
    """Fields of the recipes that are not the same in all runs."""
    names = sorted({name for run in runs for name in run.recipe} - {*FREE})
    return [name for name in names if any(run.recipe.get(name) != runs[0].recipe.get(name) for run in runs)]


def _row(run: Run) -> list[str]:
    fixed = run.gates["fixed"]["all"]["changed"] if run.gates else None
    gates = f"{fixed} of {run.gates['n']}" if run.gates else ""
    seconds = sum(row["seconds"] for row in run.history)
    figures_of = [f"{run.top1:.2f}", str(run.result["n"]), str(len(run.history)), f"{seconds:.0f}", gates]
    return [run.place.name, run.recipe["model"], str(run.seed), *figures_of]
