"""The plain network that a model of the catalogue stands on, to be trained beside it."""

import timm

from zoo.errors import UserError
from zoo.models.variants import VARIANTS


class NoPlainNetworkError(UserError, ValueError):
    """The model has no plain network that starts from the same weights."""


def plain_network(model: str, weights: str = "") -> str:
    """Name, with its tag where `weights` are not given, of the plain network that starts as `model` does.

    Raises NoPlainNetworkError for a model without attention, and for weights that hold trained gates.
    """
    name, _, tag = model.partition(".")
    backbone = next((row.backbone for row in VARIANTS if row.name == name and row.attention), "")
    if not backbone:
        raise NoPlainNetworkError(
            f"{model} is no model of the zoo with attention, so there is no plain network beside it; `zoo list` "
            "prints those that have"
        )
    if weights:
        return backbone
    cfg = timm.get_pretrained_cfg(model)
    tag = (cfg.tag if cfg else "") or tag
    if not tag.startswith("warm_"):
        raise NoPlainNetworkError(
            f"the weights {tag or 'of a new tag'} of {name} are not those of {backbone}; give --weights FILE of the "
            "plain network, from which both start"
        )
    return f"{backbone}.{tag.removeprefix('warm_')}"
