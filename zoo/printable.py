"""Text from elsewhere, such as the class names of a stranger's model, in a form that only shows it."""

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, changes colours, ends a line, or turns the direction of what follows."""
SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d).*?(?:\x07|\x1b\\|\x9c|$)", re.DOTALL)
"""A command to a terminal, by ANSI's rules: it goes as a whole, not its first character alone."""


def printable(text: object) -> str:
    """`text` without what a terminal would take for a command, its lines joined."""
    return CONTROL.sub(lambda found: " " if found[0].isspace() else "", SEQUENCE.sub("", str(text)))


def printable_json(line: str) -> str:
    """A line of JSON that means the same, with what a terminal would take for a command spelled out."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
