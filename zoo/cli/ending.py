"""How a command ends that did not come through: what it says, and its exit code."""

import os
import platform
import select
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, cast

from zoo.errors import Interrupted, UserError
from zoo.printable import printable

MISTAKE, DEFECT = 2, 70
"""What the user or the system can mend; a defect of the zoo (EX_SOFTWARE)."""
INTERRUPTED = 75
"""EX_TEMPFAIL: try again later."""
CTRL_C = 128 + 2
READER_LEFT = 128 + 13
"""What a shell reports of a program that SIGPIPE ended."""


def have_streams() -> None:
    """Let output go nowhere where it was closed, and show as an escape what it has no letters for."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it stays open)
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")  # as standard error is


def end(error: BaseException, debug: bool) -> int:
    """Say in a line what ended the command, after its traceback if `debug`; a defect always has one. The exit code."""
    streams = (sys.stdout, sys.stderr)
    left = isinstance(error, BrokenPipeError) and any(map(_nobody_reads, streams))
    for stream in streams:
        _flush_or_let_go(stream)
    if left:
        return READER_LEFT
    code, say = next(((code, say) for kind, code, say in ENDINGS if kind(error)), (DEFECT, _defect))
    with suppress(OSError):  # where nothing can be said, the code does
        if debug or code == DEFECT:
            _show_all(error)
        print(f"zoo: {printable(say(error))}", file=sys.stderr)
    return code


def _show_all(error: BaseException) -> None:
    """The traceback, with what was translated into words for the user, too."""
    below: BaseException | None = error
    while below is not None:
        below.__suppress_context__ = False
        below = below.__cause__ or below.__context__
    traceback.print_exception(error)


def _of_system(error: BaseException) -> str:
    """An error of the system without its number: the file, and what it is about it."""
    assert isinstance(error, OSError)
    if isinstance(error, FileNotFoundError) and not _is_somewhere():
        return "the directory that this was started in is gone; change to one that is there, then run the same again"
    files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    said = error.strerror if error.strerror and error.errno else str(error)
    return f"{files}: {said}" if files else said or type(error).__name__


def _is_somewhere() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def _out_of_memory(error: BaseException) -> bool:
    """torch has a RuntimeError for it on a CPU, a kind of that on an accelerator."""
    says = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or says


def _memory(error: BaseException) -> str:
    said = (str(error).strip() or "more was asked for than there is").splitlines()[0]
    return f"out of memory ({said}); take smaller batches, or a smaller image size"


def _defect(error: BaseException) -> str:
    from importlib import metadata

    found = {each.name: each.version for each in metadata.distributions()}
    packages = ", ".join(f"{name} {found[name]}" for name in ("timm-attention-zoo", "torch", "timm") if name in found)
    return (
        "this is a defect of the zoo and nothing that you did wrong. Please report it where you got the zoo from, with "
        f"the lines above and your command ({packages}, Python {platform.python_version()}, {sys.platform})"
    )


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the pipe behind a stream is closed at its other end."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _flush_or_let_go(stream: TextIO) -> None:
    """Write what is left, or let nothing be written any more: Python would try once more at its exit, and complain."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


ENDINGS: list[tuple[Callable[[BaseException], bool], int, Callable[[BaseException], str]]] = [
    (lambda error: isinstance(error, UserError), MISTAKE, str),
    (lambda error: isinstance(error, Interrupted), INTERRUPTED, str),
    (lambda error: isinstance(error, KeyboardInterrupt), CTRL_C, lambda error: "interrupted"),
    (_out_of_memory, MISTAKE, _memory),
    (lambda error: isinstance(error, OSError), MISTAKE, _of_system),
]
"""(which errors, exit code, what to say of them); all others are defects."""
