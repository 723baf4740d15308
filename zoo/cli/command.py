"""The `zoo` command: its verbs, and how it ends."""

import os
import sys
import traceback
from itertools import chain
from typing import Any

import click

from zoo import __version__
from zoo.cli.data import check_data
from zoo.cli.inference import evaluate, predict
from zoo.cli.release import publish
from zoo.cli.training import finetune, recipe, train
from zoo.cli.weights import convert, list_models, verify
from zoo.printable import printable

SECTIONS = {
    "Training": (train, finetune, recipe),
    "Data": (check_data,),
    "Trained models": (evaluate, predict, publish),
    "Models and weights": (list_models, verify, convert),
}
"""The verbs as `zoo --help` shows them."""
MISTAKES = (ValueError, FloatingPointError, OSError, EOFError)
"""What a user can cause; these say in one line what is wrong and what to do."""
INTERRUPTED = 75
"""EX_TEMPFAIL: try again later."""
READER_LEFT = 128 + 13
"""What a shell reports of a program that SIGPIPE ended."""


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
            code = super().invoke(ctx) or 0
            sys.stdout.flush()  # not at the exit of Python, where a reader that left causes a message
            return code
        except (click.ClickException, click.exceptions.Exit):
            raise
        except BrokenPipeError as error:
            return READER_LEFT if _reader_left() else _end(error, 2, ctx.params["debug"])
        except MISTAKES as error:
            return _end(error, 2, ctx.params["debug"])
        except KeyboardInterrupt:
            return _end("interrupted", 130, ctx.params["debug"])
        except Exception as error:
            from zoo.training.checkpoint import Interrupted

            if isinstance(error, Interrupted):
                return _end(error, INTERRUPTED, ctx.params["debug"])
            raise


def _end(words: object, code: int, debug: bool) -> int:
    """Say in a line why it ends, after the traceback of the exception at hand if it is wanted; returns the code."""
    if debug:
        traceback.print_exc()
    print(f"zoo: {printable(words)}", file=sys.stderr)
    return code


def _reader_left() -> bool:
    """Whether the pipe behind standard output is closed; then let nothing be written to it any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


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

    Returns 0; 1 for data with problems; 2 for a user's mistake, said in a line on stderr; 75 (EX_TEMPFAIL) for a run
    that a signal or Ctrl-C stopped and that can go on; 130 for Ctrl-C elsewhere; 141 if nobody reads the output any
    more. Wrong usage raises SystemExit(2).
    """
    try:
        code: Any = command.main(arguments, prog_name="zoo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    return code


if __name__ == "__main__":
    sys.exit(main())
