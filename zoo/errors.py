"""What ends a command and is no defect."""


class UserError(Exception):
    """What was asked for cannot be done; the text says the value, the choices and the next step, in a line or two.

    The root of all errors that are the user's doing. They and those of the system (OSError) are all that the command
    line says in a line; everything else that is raised is a defect of the zoo.
    """


class Interrupted(Exception):
    """A signal asked a run to stop, and its state is saved."""


def in_a_line(error: BaseException, most: int = 300) -> str:
    """What an error of somebody else's code says, on a line; its kind as well where the text does not tell it."""
    said = " ".join(str(error).split())[:most]
    kind = type(error).__name__
    return f"{kind}: {said}" if isinstance(error, LookupError | AssertionError) and said else said or kind
