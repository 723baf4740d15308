"""Verbs that train."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

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
    from zoo.training.start import resume
    from zoo.training.start import train as train_by

    if bool(recipe) == bool(interrupted):
        raise ValueError("zoo train takes a recipe, or --resume RUN, and one of them; `zoo train quickstart` tries it")
    if interrupted:
        run = resume(interrupted, overrides)
    else:
        run = train_by(load_recipe(recipe, overrides), out or _default_out(Path(recipe).stem))
    _finish(run)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path())
@click.option("--weights", default="", metavar="FILE|RUN|HUB-ID", help="Weights instead of the model's own.")
@click.option("--epochs", default=0, metavar="N", help="By default chosen by the size of the set.")
@override
@click.option("--out", type=PATH, metavar="DIR", help="Run directory; default runs/MODEL-DATA.")
def finetune(model: str, data: str, weights: str, epochs: int, overrides: tuple[str, ...], out: Path | None) -> None:
    """Fine-tune a model with weights on your images.

    MODEL is a name of `zoo list`, or any timm model. DATA is named as in a recipe, such as a folder of class folders.
    """
    from zoo.training.fine_tuning import finetune as finetune_on

    out = out or _default_out(f"{_short(model)}-{Path(data).stem}")
    _finish(finetune_on(model, data, out, weights, epochs, overrides))


@click.command()
def recipe() -> None:
    """Print the fields of a recipe: type, default and meaning."""
    from zoo.training.recipe_file import recipe_table

    print(recipe_table(), end="")


def _short(model: str) -> str:
    """A model's name for its runs: without a tag; of RUN/model that of the run, of a repository its own."""
    place = Path(model.partition(":")[2].partition("@")[0].removesuffix("/model"))
    return place.name if ":" in model else model.split(".")[0]


def _default_out(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is not there."""
    if "WORLD_SIZE" in os.environ:
        raise ValueError("under torchrun, --out DIR is needed, so that processes started again find their run")
    directory = Path("runs") / name
    tries = (directory.with_name(f"{directory.name}-{k}") for k in range(2, sys.maxsize))
    return directory if not directory.exists() else next(path for path in tries if not path.exists())


def _finish(run: "Outcome") -> None:
    """Have the run's card and report written, and say what came out; once, if several processes trained."""
    if os.environ.get("RANK", "0") != "0":
        return
    from zoo.release.run_card import write_run_card
    from zoo.report.page import write_report

    write_run_card(run.directory)
    write_report(run.directory)
    print(f"\ntop-1 {run.score.top1:.2f} %, top-5 {run.score.top5:.2f} %, n = {run.score.n} held out", end="")
    print(f" ({run.measured_on})")
    print(f"kept: {run.kept}")
    print(f"run: {run.directory} (report.html shows the curves)\n\nLoad it:\n")
    print("    import timm, zoo")
    print(f'    model = timm.create_model("local-dir:{run.directory / "model"}", pretrained=True)')
