"""What a command says of work that the library does silently: it tells Python's logging alone."""

import logging
import sys

KERNELS = logging.getLogger("zoo.attention.kernels")


class _Said(logging.Handler):
    """Lines on whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def say_what_takes_long() -> None:
    """Show that kernels are being compiled, and what else they have to say."""
    if not any(isinstance(handler, _Said) for handler in KERNELS.handlers):
        KERNELS.addHandler(_Said())
        KERNELS.setLevel(logging.INFO)
