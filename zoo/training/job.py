"""All that the loop needs and does not change: every choice that the recipe leaves to be made, made before it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from zoo.data import Data
from zoo.data.augment import normaliser
from zoo.data.input_spec import InputSpec
from zoo.data.loaders import TrainingBatches
from zoo.data.splitting import labels_of
from zoo.inference.device import autocast
from zoo.processes import World
from zoo.training.batches import (
    HeldOutBatches,
    Prepare,
    data_config,
    make_batches,
    make_preparation,
    require_match,
    require_size,
    share_of_update,
)
from zoo.training.objective import Branches, Objective, make_objective
from zoo.training.recipe import Recipe
from zoo.training.starting_model import training_spec


@dataclass(frozen=True)
class Job:
    """A run's parts, as the loop takes them."""

    recipe: Recipe
    data: Data
    world: World
    spec: InputSpec
    """What goes into the network."""
    config: dict[str, Any]
    """The same for timm's transforms, with mean, std, interpolation and crop."""
    batches: TrainingBatches
    held_out: HeldOutBatches
    prepare: Prepare
    objective: Objective
    autocast: Callable[[], AbstractContextManager[Any]]
    wrap: Callable[[nn.Module], nn.Module]
    """The model compiled and spread over the processes, as the recipe wants."""


def memory_layout(recipe: Recipe, spec: InputSpec) -> torch.memory_format:
    """How images or volumes and the weights for them lie in memory."""
    return spec.kind.channels_last if recipe.channels_last else torch.contiguous_format


def make_job(recipe: Recipe, data: Data, model: nn.Module, world: World) -> Job:
    """Make every choice that the recipe leaves. Raises RecipeError or DataError for parts that do not fit together."""
    spec = training_spec(recipe, model)
    require_match(recipe, data, spec)
    require_size(recipe, model, spec, world)
    config, layout = data_config(recipe, model, spec), memory_layout(recipe, spec)
    share = share_of_update(recipe, data, world)
    normalise = normaliser(config["mean"], config["std"], world.device, layout, spec.kind.axes)
    batches, held_out = make_batches(recipe, data, spec, config, share, world, layout, normalise)
    labels = labels_of(data.train) if recipe.balance == "loss" else ()
    compiled: Callable[[nn.Module], Any] = cache(torch.compile) if recipe.compile else lambda model: model
    branches: Callable[[nn.Module], nn.Module] = Branches if recipe.branch_loss else lambda model: model

    def wrap(model: nn.Module) -> nn.Module:
        network: Any = compiled(branches(model))
        return world.wrap(network)

    return Job(
        recipe=recipe,
        data=data,
        world=world,
        spec=spec,
        config=config,
        batches=batches,
        held_out=held_out,
        objective=make_objective(recipe, config, data.classes, world.device, labels),
        prepare=make_preparation(recipe, share, normalise, len(data.classes), world.device),
        autocast=autocast(world.device, recipe.amp),
        wrap=wrap,
    )
