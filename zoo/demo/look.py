"""What the page shows of a picture; it knows nothing of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.data import DataError
from zoo.errors import UserError
from zoo.explain.averaged import average_gates, with_fixed_gates
from zoo.explain.figure import COLUMNS, explain_figure
from zoo.explain.picture import Picture, open_picture
from zoo.explain.view import look_at
from zoo.explain.watching import ExplainError, Fixed
from zoo.inference import Trained
from zoo.inference.exported import ExportedNetwork

MOST_PIXELS = 40_000_000
"""Of a picture that is given to the page: more than cameras make, and a sixth of a gigabyte when it is read."""


class DemoError(UserError, ValueError):
    """What the page cannot be made of, or cannot show."""


@dataclass(frozen=True)
class Seen:
    """One network before one picture."""

    classes: dict[str, float]
    averaged: str
    """What fixing the gates changes, in a sentence."""


class Shown:
    """A network on the page."""

    def __init__(self, name: str, trained: Trained, examples: Sequence[Path]) -> None:
        if isinstance(trained.network, ExportedNetwork):
            raise DemoError(f"{name} is an exported file, whose attention cannot be looked into; give its run or model")
        self.name, self.trained, self.examples = name, trained, examples

    def picture(self, file: Path) -> Picture:
        """Raises DataError with the name of a file that cannot be read."""
        require_modest(file)
        return open_picture(file, self.trained.config, self.trained.spec)

    @cached_property
    def averages(self) -> Fixed:
        """Of the gates over the examples."""
        return average_gates(self.trained.network, [self.picture(file).x for file in self.examples])

    def averaged(self, picture: Picture, answer: str) -> str:
        """Whether averaging the gates changes the answer."""
        try:
            probabilities = with_fixed_gates(self.trained.network, picture.x, self.averages).float().softmax(1)[0]
        except ExplainError:
            return f"{self.name} has no attention."
        which = int(probabilities.argmax())
        other = f"{self.trained.describe(which)} ({100 * float(probabilities[which]):.1f} %)"
        changes = "stays" if self.trained.describe(which) == answer else "changes"
        return (
            f"With the gates of {self.name} fixed at their averages over the {len(self.examples)} example pictures, "
            f"the answer {changes}: {other}."
        )


def require_modest(file: Path) -> None:
    """Raise DataError for a picture that has more pixels than the page reads; other faults are the reader's to tell."""
    try:
        with Image.open(file) as opened:
            width, height = opened.size
    except Exception:  # Pillow raises whatever it meets
        return
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{file.name} has {width}x{height} pixels; this page reads {MOST_PIXELS / 1e6:.0f} million at most"
        )


def look(shown: Sequence[Shown], file: Path, columns: int = COLUMNS) -> tuple[Any, list[Seen]]:
    """The figure of one network or two, and what each says. Raises DataError for a file that cannot be read."""
    pictures = [each.picture(file) for each in shown]
    views = [look_at(each.trained, picture) for each, picture in zip(shown, pictures, strict=True)]
    said = [
        Seen(dict(view.classes), each.averaged(picture, view.classes[0][0]))
        for each, picture, view in zip(shown, pictures, views, strict=True)
    ]
    return explain_figure(pictures[0], views, columns), said
