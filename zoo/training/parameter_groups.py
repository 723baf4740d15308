"""Which parameters train, when, and at what rate. Gates and head are new, so they get the full rate from the start."""

from collections.abc import Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn

from zoo.training.recipe import Recipe, RecipeError


def new_parts(model: Any) -> tuple[str, ...]:
    """Beginnings of the names of the parameters that no plain network's weights fill: gates and classifier."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{name}." for name in (*heads, *(site.gate for site in getattr(model, "gate_sites", ()))))


def parameter_groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for the optimizer with `lr_scale`, by distance from the head, and weight decay on matrices alone.

    Raises RecipeError if `freeze` names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for beginning in recipe.freeze:
        if not any(name.startswith(beginning) for name in names):
            top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise RecipeError(f"no parameter of {recipe.model} begins with {beginning!r}; they begin with {top}")
    layers: Any = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last, new = max(layers.values()), new_parts(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(recipe.freeze or ("\0",)):
            continue
        scale = 1.0 if name.startswith(new) else recipe.layer_decay ** (last - layers[name])
        groups.setdefault((scale, recipe.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def thaw(model: Any, recipe: Recipe, epoch: int) -> None:
    """Let train what trains in this epoch; the rest keeps its parameters and its batch statistics."""
    new, head_first = new_parts(model), epoch < recipe.head_epochs
    for name, parameter in model.named_parameters():
        frozen = name.startswith(recipe.freeze or ("\0",)) or (head_first and not name.startswith(new))
        parameter.requires_grad_(not frozen)
    model.train()
    for norm in _batch_norms(model):
        if not any(parameter.requires_grad for parameter in norm.parameters()):
            norm.eval()


def _batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
