"""The root of all errors that are the user's doing."""


class UserError(Exception):
    """What was asked for cannot be done; the text says the value, the choices and the next step, in a line or two.

    Errors of this kind and those of the system (OSError) are all that the command line says in a line. Everything else
    that is raised is a defect of the zoo.
    """
