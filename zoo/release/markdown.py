"""Text that others wrote, in a card: shown word for word, never read as Markdown, HTML, a link or a row of a table."""

import re
from collections.abc import Iterable

from zoo.printable import printable

LONGEST = 100
"""Characters of a text that is shown; a name needs no more."""
MARKUP = re.compile(r"[&<>\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
ADDRESS = re.compile(r"\b(?:[a-z][a-z0-9+.-]*://|mailto:|www\.)", re.IGNORECASE)
"""How a text begins of which a page makes a link by itself."""


def code(text: object) -> str:
    """The text in a code span, behind as many backticks as it needs."""
    shown = printable(text).strip()
    shown = f"{shown[:LONGEST]}..." if len(shown) > LONGEST else shown
    if not shown:
        return "(no name)"
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    edge = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{ticks}{edge}{shown}{edge}{ticks}"


def plain(text: object) -> str:
    """The text as part of a sentence; addresses in it are no links."""
    shown = ADDRESS.sub("", printable(text))
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", shown)


def row(cells: Iterable[str]) -> str:
    """A row of a table; a bar in a cell is no border, in a code span neither."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def block(text: str, language: str) -> str:
    """Lines of code, in a fence that none of them closes; `text` ends with a line's end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}"
