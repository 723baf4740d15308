"""The `zoo` command: its verbs, and how it ends."""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import click

from zoo import __version__
from zoo.cli.bench import bench
from zoo.cli.data import check_data
from zoo.cli.demo import demo
from zoo.cli.ending import end, have_streams
from zoo.cli.explain import explain
from zoo.cli.export import export
from zoo.cli.inference import evaluate, predict
from zoo.cli.release import publish
from zoo.cli.report import report
from zoo.cli.said import say_what_takes_long
from zoo.cli.training import finetune, recipe, train
from zoo.cli.weights import convert, list_models, verify

SECTIONS = {
    "Training": (train, finetune, report, recipe),
    "Data": (check_data,),
    "Trained models": (evaluate, predict, explain, demo, export, publish),
    "Models and weights": (list_models, verify, convert, bench),
}
"""The verbs as `zoo --help` shows them."""


class Verbs(click.Group):
    """A group of verbs that says a mistake in one line, and shows its traceback only when it is asked for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs by section, in place of one list by name."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(verb.name), verb.get_short_help_str(80)) for verb in verbs])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """--debug may stand behind the verb, too."""
        rest = [word for word in args if word != "--debug"]
        return super().parse_args(ctx, ["--debug", *rest] if len(rest) < len(args) else args)

    def invoke(self, ctx: click.Context) -> int:
        try:
            Path.cwd()  # before MKL asks where it is, which ends the process if that is gone
            code = super().invoke(ctx) or 0
            sys.stdout.flush()  # not at the exit of Python, where a reader that left causes a message
            return code
        except (click.ClickException, click.exceptions.Exit, SystemExit):
            raise
        except BaseException as error:
            return end(error, ctx.params["debug"])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="VERB ...",
    epilog="""\b
`zoo VERB --help` says more of a verb. For completion in bash (zsh, fish alike):
    eval "$(_ZOO_COMPLETE=bash_source zoo)"
""",
)
@click.version_option(__version__, message="zoo %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of a mistake, which is one line otherwise.")
def command(debug: bool) -> None:
    """Attention networks for timm: train, fine-tune, measure, use and release them."""


for verb in chain.from_iterable(SECTIONS.values()):
    command.add_command(verb)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns 0; 1 for data with problems; 2 for what the user or the system can mend, said in a line on stderr; 70
    (EX_SOFTWARE) for a defect of the zoo, with its traceback; 75 (EX_TEMPFAIL) for a run that a signal or Ctrl-C
    stopped and that can go on; 130 for Ctrl-C elsewhere; 141 if nobody reads the output any more. Wrong usage raises
    SystemExit(2).
    """
    have_streams()
    say_what_takes_long()
    try:
        code: Any = command.main(arguments, prog_name="zoo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    return code


if __name__ == "__main__":
    sys.exit(main())
