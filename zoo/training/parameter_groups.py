"""Which parameters train, when, and at what rate. Gates and head are new, so they get the full rate from the start."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

from timm.models import group_parameters
from torch import nn

from zoo.training.recipe import Recipe, RecipeError


def gate_parts(model: Any) -> tuple[str, ...]:
    """Beginnings of the names of the gates' parameters."""
    return tuple(f"{site.gate}." for site in getattr(model, "gate_sites", ()))


def new_parts(model: Any) -> tuple[str, ...]:
    """Beginnings of the names of the parameters that no plain network's weights fill: gates and classifier."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return (*(f"{name}." for name in heads), *gate_parts(model))


def parameter_groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for the optimizer with `lr_scale`, by distance from the head, and weight decay on matrices alone.

    What the model froze itself is in none, and what timm's `no_weight_decay` of the model names is not decayed. Raises
    RecipeError if `freeze` names no parameter, or all.
    """
    names = [name for name, _ in model.named_parameters()]
    for beginning in recipe.freeze:
        if not any(name.startswith(beginning) for name in names):
            top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise RecipeError(f"no parameter of {recipe.model} begins with {beginning!r}; they begin with {top}")
    layers: Any = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last, new, gates = max(layers.values()), new_parts(model), gate_parts(model)
    plain: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    undecayed = plain()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(recipe.freeze or ("\0",)) or not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not any(fnmatch(name, pattern) for pattern in undecayed)
        scale = 1.0 if name.startswith(new) else recipe.layer_decay ** (last - layers[name])
        scale *= recipe.gate_lr_scale if name.startswith(gates) else 1.0
        groups.setdefault((scale, recipe.weight_decay if decays else 0.0), []).append(parameter)
    if not groups:
        raise RecipeError(f"freeze = {list(recipe.freeze)} leaves nothing of {recipe.model} to train; leave some out")
    if recipe.head_epochs and not any(name.startswith(new) and not name.startswith(recipe.freeze) for name in names):
        raise RecipeError("head_epochs trains head and gates alone, and freeze keeps them as they are; leave one out")
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def thawing(model: Any, recipe: Recipe) -> Callable[[int], None]:
    """What lets train, given an epoch, what trains in it; the rest keeps its parameters and its batch statistics.

    To be made before training, when what does not require gradients is what the model froze itself.
    """
    new, never = new_parts(model), recipe.freeze or ("\0",)
    parameters = dict(model.named_parameters())
    own = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    norms = list(_batch_norms(model))

    def thaw(epoch: int) -> None:
        head_first = epoch < recipe.head_epochs

        def trains(name: str) -> bool:
            return name not in own and not name.startswith(never) and (not head_first or name.startswith(new))

        for name, parameter in parameters.items():
            parameter.requires_grad_(trains(name))
        model.train()
        for norm, names in norms:
            norm.train(any(map(trains, names)))

    return thaw


def _batch_norms(model: nn.Module) -> Iterator[tuple[nn.Module, list[str]]]:
    """The batch norms, with the names of their parameters, or of the statistics of those that have none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module, [f"{name}.{each}" for each, _ in module.named_parameters()] or [f"{name}.running_mean"]
