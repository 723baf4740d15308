"""What cannot be exported."""

from zoo.errors import UserError


class ExportError(UserError, ValueError):
    """A network that cannot be exported as asked, a file that computes something else, or a place for no file."""
