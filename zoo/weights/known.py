"""Whether timm knows a model by some name, and one answer to all names that it does not know."""

import difflib

import timm
from timm.models import get_arch_pretrained_cfgs

from zoo.errors import UserError


class UnknownModelError(UserError, ValueError):
    """A name that no registered model has, or a tag that it has not."""


def require_model(name: str, or_give: str = "") -> str:
    """Return `name`, with or without a tag, if timm knows the model.

    Raises UnknownModelError with the names nearest to it, or with the tags that the model has. `or_give` names what
    the caller takes in place of a model's name, e.g. "a run directory or hf-hub:ORG/NAME".
    """
    model, dot, tag = name.partition(".")
    if timm.is_model(model):
        tags = get_arch_pretrained_cfgs(model)
        if not dot or name in tags:
            return name
        there = [each.partition(".")[2] for each, cfg in tags.items() if cfg.has_weights]
        has = f"its tags are {', '.join(there)}" if there else "nobody has published any"
        raise UnknownModelError(f"{model} has no weights of the tag {tag!r}; {has}")
    if found := _with_attention(model):
        raise UnknownModelError(f"unknown model {name!r}; {found}")
    if near := difflib.get_close_matches(model, timm.list_models(), 3):
        hint = f"did you mean {' or '.join(near)}?{f' Or give {or_give}' if or_give else ''}"
    else:
        hint = f"give a name of `zoo list` or timm.list_models(){f', or {or_give}' if or_give else ''}"
    raise UnknownModelError(f"unknown model {name!r}; {hint}")


def _with_attention(model: str) -> str:
    """How to get `cbam_efficientnet_b0` where the catalogue has CBAM and timm the network; empty if that is not so."""
    catalogue = timm.list_models(module="catalog")
    parts = model.split("_")
    for k in range(1, len(parts)):
        attention, backbone = "_".join(parts[:k]), "_".join(parts[k:])
        others = (each.removeprefix(f"{attention}_") for each in catalogue if each.startswith(f"{attention}_"))
        if timm.is_model(backbone) and any(map(timm.is_model, others)):
            return (
                f"but timm has {backbone}, and any network can have {attention}: "
                f'timm.create_model("with_attention", backbone="{backbone}", attention="{attention}"), in a recipe '
                f'model = "{backbone}" and attention = "{attention}", or `zoo finetune {backbone} DATA --attention '
                f"{attention}`"
            )
    return ""
