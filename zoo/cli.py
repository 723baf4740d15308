"""The `zoo` command: a table of verbs, each a Python function that also works without it."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def run_train(options: argparse.Namespace) -> None:
    """Train a model by a recipe file."""
    from zoo.recipe import load_recipe
    from zoo.train import train

    recipe = load_recipe(options.recipe, options.set)
    run = train(recipe, options.out or _free(Path("runs") / Path(options.recipe).stem))
    print(f"\ntop-1 {run.score.top1:.2f} %, top-5 {run.score.top5:.2f} %, n = {run.score.n} held-out images")
    print(f"run: {run.directory} (report.html shows the curves)\n\nLoad it:\n")
    print("    import timm, zoo")
    print(f'    model = timm.create_model("local-dir:{run.directory / "model"}", pretrained=True)')


def run_list(options: argparse.Namespace) -> None:
    """Print the zoo's models."""
    import timm

    import zoo  # noqa: F401

    names = timm.list_models(options.pattern, module="catalog")
    if not names:
        raise ValueError(f"no model of the zoo matches {options.pattern!r}; `zoo list` prints all")
    print("\n".join(names))


def _free(directory: Path) -> Path:
    """`directory`, or the first of directory-2, directory-3 ... that is not there."""
    tries = (directory.with_name(f"{directory.name}-{k}") for k in range(2, sys.maxsize))
    return directory if not directory.exists() else next(path for path in tries if not path.exists())


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a TOML file, see configs/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory; default runs/RECIPE")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='such as "cbam_*"')


VERBS: dict[str, tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (run_train, _train_arguments),
    "list": (run_list, _list_arguments),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns 0, 2 for a user's mistake (said in a line on stderr), 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="zoo", description="Attention ResNets and MobileNets for timm.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, (run, add_arguments) in VERBS.items():
        verb = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        add_arguments(verb)
        verb.set_defaults(run=run)
    options = parser.parse_args(arguments)

    import zoo  # noqa: F401  registers the models

    try:
        options.run(options)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
