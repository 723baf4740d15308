"""Whether a network takes inputs of a size that is not its own."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zoo.data.input_spec import InputSpec, input_spec
from zoo.errors import UserError, in_a_line
from zoo.weights.config import MOST_VALUES


class SizeError(UserError, ValueError):
    """A size that a network does not take."""


def size_arguments(cfg: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """What timm.create_model has to be told for inputs of another size: vision transformers are built for one.

    Raises SizeError for one that is beyond all networks.
    """
    require_possible(size)
    return {"img_size": tuple(size)} if cfg.get("fixed_input_size") else {}


def require_possible(size: Sequence[int]) -> None:
    """Raise SizeError for a size that would take all memory, before any is asked for."""
    if math.prod(size) > MOST_VALUES:
        sides = "x".join(map(str, size))
        raise SizeError(f"a size of {sides} is more than the {MOST_VALUES / 1e6:.0f} million places that the zoo takes")


@torch.no_grad()
def require_takes(model: Any, spec: InputSpec, called: str) -> None:
    """Raise SizeError unless `model` computes something for an input of that size; tries one, in eval mode."""
    require_possible(spec.size)
    was_training = model.training
    try:
        model.eval()(_zeros(model, spec))
    except Exception as error:  # what a network raises for a size that it does not take, is its own affair
        sides, own = ("x".join(map(str, each.size)) for each in (spec, input_spec(model)))
        raise SizeError(
            f"{called} cannot take {spec.kind.many} of {sides} {spec.kind.unit}: {in_a_line(error)}; its own size is "
            f"{own}"
        ) from error
    finally:
        model.train(was_training)


@torch.no_grad()
def require_takes_one(model: Any, spec: InputSpec, called: str) -> None:
    """Raise SizeError if a batch norm of `model` in training sees one value a channel of a batch of one."""
    model = copy.deepcopy(model).train()
    try:
        model(_zeros(model, spec))
    except ValueError as error:  # torch's own: of one value there is no variance
        raise SizeError(
            f"{called} cannot learn from batches of one at {'x'.join(map(str, spec.size))} {spec.kind.unit}: "
            f"{in_a_line(error)}; raise batch_size, lower accumulate, or take a larger image_size"
        ) from error


def _zeros(model: Any, spec: InputSpec) -> torch.Tensor:
    first = next(model.parameters(), torch.zeros(()))  # an exported network has none, and runs on the CPU
    return torch.zeros(1, *spec.shape, device=first.device, dtype=first.dtype)
