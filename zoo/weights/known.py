"""Whether timm knows a model by some name, and one answer to all names that it does not know."""

import difflib

import timm

from zoo.errors import UserError


class UnknownModelError(UserError, ValueError):
    """A name that no registered model has."""


def require_model(name: str, or_give: str = "") -> str:
    """Return `name`, with or without a tag, if timm knows the model.

    Raises UnknownModelError with the names nearest to it. `or_give` names what the caller takes in place of a model's
    name, e.g. "a run directory or hf-hub:ORG/NAME".
    """
    model = name.split(".")[0]
    if timm.is_model(model):
        return name
    if near := difflib.get_close_matches(model, timm.list_models(), 3):
        hint = f"did you mean {' or '.join(near)}?{f' Or give {or_give}' if or_give else ''}"
    else:
        hint = f"give a name of `zoo list` or timm.list_models(){f', or {or_give}' if or_give else ''}"
    raise UnknownModelError(f"unknown model {name!r}; {hint}")
