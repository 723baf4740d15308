"""Verbs that train."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.training.run_directory import Outcome

override = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the recipe."
)
PATH = click.Path(path_type=Path)


def _complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of shipped recipes, or files where none begins so."""
    from zoo.training.recipe_file import shipped_recipes

    names = [CompletionItem(name) for name in shipped_recipes() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("recipe", default="", shell_complete=_complete_recipe)
@click.option("--resume", "interrupted", type=PATH, metavar="RUN", help="Go on with an interrupted run instead.")
@override
@click.option("--out", type=PATH, metavar="DIR", help="Run directory; default runs/RECIPE.")
def train(recipe: str, interrupted: Path | None, overrides: tuple[str, ...], out: Path | None) -> None:
    """Train a model by a recipe.

    RECIPE is a TOML file, or the name of a recipe that comes with zoo, such as quickstart. `zoo recipe` prints the
    fields that a recipe may have.
    """
    from zoo.training.recipe_file import load_recipe
    from zoo.training.start import Complete, resume
    from zoo.training.start import train as train_by

    if bool(recipe) == bool(interrupted):
        raise UserError("zoo train takes a recipe, or --resume RUN, and one of them; `zoo train quickstart` tries it")
    if interrupted and out:
        raise UserError(f"--out is for a new run; --resume goes on in {interrupted}")
    if not interrupted:
        read = load_recipe(recipe, overrides)
        _finish(_train_in(out, Path(recipe).stem, lambda place: train_by(read, place)))
        return
    try:
        resume(interrupted, overrides)
    except Complete:
        if overrides or _has_pages(interrupted):
            raise
    _finish(interrupted)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path())
@click.option("--weights", default="", metavar="FILE|RUN|HUB-ID", help="Weights instead of the model's own.")
@click.option("--attention", default="", metavar="NAME", help="Put it into the network, exactly: se, cbam, bam ...")
@click.option(
    "--where", multiple=True, metavar="PLACE", help="Where: stages (default), blocks, or patterns of module names."
)
@click.option("--epochs", type=int, metavar="N", help="By default chosen by the size of the set.")
@click.option("--baseline", is_flag=True, help="Train the plain network by the same recipe, too, and compare.")
@override
@click.option("--out", type=PATH, metavar="DIR", help="Run directory; default runs/MODEL-DATA.")
def finetune(
    model: str,
    data: str,
    weights: str,
    attention: str,
    where: tuple[str, ...],
    epochs: int | None,
    baseline: bool,
    overrides: tuple[str, ...],
    out: Path | None,
) -> None:
    """Fine-tune a model with weights on your images.

    MODEL is a name of `zoo list`, or any timm model. DATA is named as in a recipe, such as a folder of class folders.
    """
    from zoo.models.plain_network import plain_network
    from zoo.training.fine_tuning import finetune as finetune_on

    def tune(place: Path) -> "Outcome":
        return finetune_on(model, data, place, weights, epochs, overrides, attention, where)

    name = f"{attention}_{_short(model)}" if attention else _short(model)
    plain = (model if attention else plain_network(model, weights)) if baseline else ""
    run = _train_in(out, f"{name}-{Path(data).stem}", tune)
    _finish(run)
    if baseline:
        _compare_with(plain, run)


@click.command()
def recipe() -> None:
    """Print the fields of a recipe: type, default and meaning."""
    from zoo.training.recipe_file import recipe_table

    print(recipe_table(), end="")


def _short(model: str) -> str:
    """A model's name for its runs: without a tag; of RUN/model that of the run, of a repository its own."""
    place = Path(model.partition(":")[2].partition("@")[0].removesuffix("/model"))
    return place.name if ":" in model else model.split(".")[0]


def _train_in(out: Path | None, name: str, train: "Callable[[Path], Outcome]") -> Path:
    """Train in `out`, or else in runs/NAME, or in the first of runs/NAME-2, runs/NAME-3 ... that is not there."""
    from zoo.training.owner import Taken
    from zoo.training.start import Complete

    if out:
        with suppress(Complete):  # torchrun starts processes again that had all but ended
            train(out)
        return out
    if "WORLD_SIZE" in os.environ:
        raise UserError("under torchrun, --out DIR is needed, so that processes started again find their run")
    numbers = count(2)
    place = Path("runs") / name
    while True:
        if not place.exists():
            with suppress(Taken):  # by a process that came a moment before
                return train(place).directory
        place = place.with_name(f"{name}-{next(numbers)}")


def _compare_with(plain: str, run: Path) -> None:
    """Train the plain network by the recipe of a run, beside it, and say the difference."""
    from zoo.report.several import read_run, said_of, write_comparison
    from zoo.training.recipe_file import load_recipe
    from zoo.training.start import Complete
    from zoo.training.start import train as train_by

    place = run.with_name(f"{run.name}-plain")
    with suppress(Complete):
        recipe = load_recipe(run / "recipe.toml")
        train_by(replace(recipe, model=plain, attention="", where="stages", attn_kwargs={}), place)
    if os.environ.get("RANK", "0") == "0":
        write_pages(place)
        page = write_comparison([run], [place], run / "baseline.html")
        print(f"\n{said_of([read_run(run)], [read_run(place)])}\nthe plain run: {place} ({page} has both)")


def _has_pages(run: Path) -> bool:
    """Whether a run with a model was not stopped before its card and its report were written."""
    return (run / "model" / "README.md").exists() and (run / "report.html").exists()


def _finish(run: Path) -> None:
    """Have the run's card and report written, and say what came out; once, if several processes trained."""
    if os.environ.get("RANK", "0") != "0":
        return
    from zoo.training.run_directory import kept_words, read_facts

    write_pages(run)
    facts = read_facts(run)
    result = facts["result"]
    print(f"\ntop-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, n = {result['n']} held out", end="")
    print(f" ({result['split']})")
    print(f"kept: {kept_words(result, facts['recipe'])}")
    files = [f"{path.name} {_megabytes(path)}" for path in sorted(run.iterdir())]
    print(f"files: {', '.join(files)}{'' if facts['recipe']['keep_checkpoints'] else '; keep_checkpoints is off'}")
    if gates := facts.get("gates"):
        print(gates["sentence"])
    print(f"run: {run} (report.html shows the curves, the mistakes and more)\n\nLoad it:\n")
    print("    import timm, zoo")
    print(f'    model = timm.create_model("local-dir:{run / "model"}", pretrained=True)')


def write_pages(run: Path) -> None:
    """Look at what the run held out once more, and write its card, its report and the pictures beside it."""
    from zoo.release.run_card import write_run_card
    from zoo.report.look import look_or_why_not
    from zoo.report.page import write_report
    from zoo.training.run_directory import add_facts

    look, why_not = look_or_why_not(run)
    if look and look.gates:
        add_facts(run, gates=look.gates.summary)
    write_run_card(run)
    write_report(run, look, why_not)


def _megabytes(path: Path) -> str:
    """The size of a file, or of all files in a folder."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
