"""What maps the modules of a network give: found by running it once on zeros, on the meta device where it can."""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.input_spec import input_spec
from zoo.models.mounting import AttachError
from zoo.models.placement import Network

UNKNOWN_SIDES = {1: (1024,), 2: (224, 320), 3: (16, 112, 160)}
"""Size of an input, by its axes of space, for a network that does not say what it takes."""
IN_WORDS = {1: "(B, C, L)", 2: "(B, C, H, W)", 3: "(B, C, D, H, W)"}


@dataclass
class Look:
    """What a run on zeros showed of a network's modules."""

    places: tuple[str, ...]
    """What was looked at."""
    sides: tuple[int, ...] = ()
    """Of the input that went in; empty if that was no single tensor."""
    shapes: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)
    """Shapes of the maps at each place; a place that is not called has none."""
    others: dict[str, str] = field(default_factory=dict)
    """What a place gives that is no tensor, by its type's name."""
    error: Exception | None = None
    """What stopped the run."""

    @property
    def seen(self) -> set[str]:
        return {*self.shapes, *self.others}

    def channels(self, place: str, dims: int) -> tuple[int, bool]:
        """Channels of the map at a place, and whether they are its last axis.

        Raises AttachError if there is no map (B, C, H, W) or (B, H, W, C) at this place.
        """
        if place in self.others:
            raise AttachError(f"{place} gives a {self.others[place]}, no map; take a module inside or behind it")
        if place not in self.shapes:
            raise AttachError(f"{place} is never called, so a gate there would do nothing; take the module around it")
        found = {channels_of(shape, self.sides, dims) for shape in self.shapes[place] if len(shape) == dims + 2}
        if len(found) == 1:
            return found.pop()
        shape = min(self.shapes[place])
        if found:
            raise AttachError(f"{place} is called with maps of different channels ({shape} and others); take another")
        tokens = "tokens, " if dims == 2 and len(shape) == 3 else ""
        raise AttachError(
            f"{place} gives {tokens}{shape}, and gates weigh the channels and places of a map {IN_WORDS[dims]}; take a "
            f"place that gives maps{', such as a convolution in front of them' if tokens else ', or say dims='}"
        )


def channels_of(shape: Sequence[int], sides: Sequence[int], dims: int) -> tuple[int, bool]:
    """The channels of a shape and whether they are its last axis: the map is to have the input's proportions."""
    if dims != 2 or len(sides) != 2:
        return shape[1], False
    wanted = math.log(sides[0] / sides[1])
    first, last = (abs(math.log(h / w) - wanted) for h, w in (shape[2:4], shape[1:3]))
    return (shape[3], True) if last < first and last < 0.35 else (shape[1], False)


def look(model: Network, places: Mapping[str, bool], dims: int, example: Any = None) -> Look:
    """Run the network on zeros, or on `example`, and look at these places; the network stays as it was.

    `places` are names of modules, and whether it is their input that is looked at. The best of several runs counts:
    on the meta device or not, on an input of the network's own size or a wider one.
    """
    best = Look(tuple(places))
    for args in _inputs(model, dims, example):
        for twin in (_on_meta, _itself):
            found = _run(model, places, args, twin)
            if not found.error and found.seen == set(places):
                return found
            if not best.error or len(found.seen) > len(best.seen):
                best = found
    return best


def _inputs(model: Network, dims: int, example: Any) -> Iterator[tuple[Any, ...]]:
    """Arguments to call the network with. On an input that is wider than high, a map shows which axes are space."""
    if example is not None:
        yield example if isinstance(example, tuple) else (example,)
        return
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for shape in _input_shapes(model, dims):
        yield (torch.zeros(1, *shape, device=like.device, dtype=like.dtype),)


def _input_shapes(model: Network, dims: int) -> Iterator[tuple[int, ...]]:
    if getattr(model, "pretrained_cfg", None):  # timm's
        spec = input_spec(model)
        channels, sides = getattr(model, "in_chans", spec.channels), spec.size
        size = getattr(model, "_traits", {}).get("img_size")
        sides = tuple(size) if size and dims == 2 else sides
        if dims == 2 and not model.pretrained_cfg.get("fixed_input_size"):
            yield (channels, sides[0], -(-sides[1] * 3 // 2 // 32) * 32)
        yield (channels, *sides)
        return
    convolutions = (module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd))
    first = next(convolutions, None)
    channels, sides = first.in_channels if first is not None else 3, UNKNOWN_SIDES[dims]
    yield (channels, *sides)
    yield (channels, *(min(sides),) * dims)


def _run(model: Network, places: Mapping[str, bool], args: tuple[Any, ...], twin: Any) -> Look:
    found = Look(tuple(places), tuple(args[0].shape[2:]) if isinstance(args[0], Tensor) else ())

    def see(place: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found.shapes.setdefault(place, set()).add(tuple(value.shape))
        else:
            found.others[place] = type(value).__name__

    def see_output(place: str) -> Any:
        return lambda module, given, output: see(place, output)

    def see_input(place: str) -> Any:
        return lambda module, given: see(place, given[0] if given else None)

    handles, modes = [], {module: module.training for module in model.modules()}
    try:
        network, args = twin(model, args)
        for place, of_input in places.items():
            module = network.get_submodule(place)
            before, after = module.register_forward_pre_hook, module.register_forward_hook
            handles.append(before(see_input(place)) if of_input else after(see_output(place)))
        with torch.no_grad():
            network.eval()(*args)
    except Exception as error:  # whatever a network does with zeros; the caller judges by what was seen
        found.error = error
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return found


def _on_meta(model: Network, args: tuple[Any, ...]) -> tuple[Network, tuple[Any, ...]]:
    """A copy without values, which costs no memory and next to no time; what it notes of a run is not in the model."""
    without_values = {
        id(value): nn.Parameter(value.to("meta"), value.requires_grad)
        if isinstance(value, nn.Parameter)
        else value.to("meta")
        for value in (*model.parameters(), *model.buffers())
    }
    return deepcopy(model, without_values), _to_meta(args)


def _to_meta(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_to_meta, value))
    return value.to("meta") if isinstance(value, Tensor) else value


def _itself(model: Network, args: tuple[Any, ...]) -> tuple[Network, tuple[Any, ...]]:
    return model, args
