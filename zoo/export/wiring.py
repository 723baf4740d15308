"""Which layer feeds which, as one forward pass shows it.

A network's code says how its layers are joined, its list of modules does not: two that follow each other there need not
do so in `forward`. So each call of a function is watched, and tensors are told apart by identity.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.attention import Attention, kernels

LAYERS = {F.conv1d: 1, F.conv2d: 1, F.conv3d: 1, F.linear: -1}
"""Functions of layers that can take up factors, and the axis of their output's channels."""


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


class Wiring(TorchFunctionMode):
    """What one forward pass of a network in eval mode did: of each tensor, who made it, and who took it."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.layers = _names(model, nn.modules.conv._ConvNd | nn.Linear, "weight")
        self.norms = _names(model, nn.modules.batchnorm._BatchNorm, "running_var")
        self.makers: dict[int, tuple[str, int]] = {}
        """Of a tensor that a layer made: the layer, and the axis of the channels."""
        self.takers: dict[int, list[tuple[str, str]]] = {}
        """Of a tensor: the layers, norms or functions that took it, each with the gate that it is in, or ""."""
        self.turned: dict[int, int] = {}
        """Of a tensor that is another one transposed: that one."""
        self.taken: dict[str, list[int]] = {}
        """What layers, norms and gates took, by name."""
        self.given: dict[str, list[int]] = {}
        """What gates gave."""
        self.inside: list[str] = [""]
        self.kept: list[Any] = []  # what is gone has no identity
        self._watch(model, x)

    def _watch(self, model: nn.Module, x: Tensor) -> None:
        with ExitStack() as stack:
            stack.enter_context(calling(model, self._enter))
            for name, module in gates_of(model).items():
                stack.callback(module.register_forward_hook(partial(self._leave, name)).remove)
            for context in (torch.no_grad(), kernels("off"), self):
                stack.enter_context(context)
            output = model(x)
        self.kept.append(output)
        for tensor in tensors_in([output]):
            self.takers.setdefault(id(tensor), []).append(("the output", ""))

    def _enter(self, name: str, module: nn.Module, x: Tensor) -> None:
        self.inside.append(name)
        self.taken.setdefault(name, []).append(id(x))

    def _leave(self, name: str, module: nn.Module, given: Any, y: Any) -> None:
        self.inside.pop()
        if id(y) != self.taken[name][-1]:
            self.takers.pop(id(y), None)  # of the gate itself, which may have made it in place
        self.given.setdefault(name, []).append(id(y))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        made = list(tensors_in([output]))
        if not made:  # a size, a dtype
            return output
        self.kept.append((args, kwargs, made))
        layer, norm = "", ""
        if func in LAYERS:
            layer = self.layers.get(id(args[1]), "")
        elif func is F.batch_norm:
            norm = self.norms.get(id(args[2]), "")
        if name := layer or norm:
            self.taken.setdefault(name, []).append(id(args[0]))
        label = name or getattr(func, "__name__", str(func)), self.inside[-1]
        for tensor in (*tensors_in(args), *tensors_in(kwargs)):
            self.takers.setdefault(id(tensor), []).append(label)
        for tensor in made:
            self.makers.pop(id(tensor), None)  # where it was changed in place
            if layer:
                self.makers[id(tensor)] = layer, LAYERS[func] % tensor.ndim
        if func is Tensor.transpose and id(args[0]) in self.makers:
            self._turn(args[0], made[0], {axis % args[0].ndim for axis in (*args[1:], *kwargs.values())})
        return output

    def _turn(self, x: Tensor, y: Tensor, axes: set[int]) -> None:
        maker, axis = self.makers[id(x)]
        other = next(iter(axes - {axis}), axis)
        self.makers[id(y)] = maker, other if axis in axes else axis
        self.turned[id(y)] = id(x)

    def calls(self, name: str) -> int:
        """How often a layer, a norm or a gate was called."""
        return len(self.taken.get(name, ()))

    def source(self, name: str, inside: str | None = None) -> str:
        """The layer whose output goes to this norm or gate, whole and nowhere else; empty if there is none.

        All that is done in the gate `inside` counts as one taker.
        """
        sources = {self.makers.get(x, ("", 0)) for x in self.taken.get(name, ())}
        layer, axis = sources.pop() if len(sources) == 1 else ("", 0)
        alone = all(self._only(x, name, inside) for x in self.taken.get(name, ()))
        return layer if layer and axis == 1 and alone and self.calls(layer) == self.calls(name) else ""

    def _only(self, x: int, name: str, inside: str | None) -> bool:
        takers = self.takers.get(x, [])
        if inside is not None:
            return all(gate == inside for _, gate in takers)
        whole = [taker for taker, _ in takers] == [name]
        while x in self.turned:
            x = self.turned[x]
            whole = whole and len(self.takers[x]) == 1
        return whole

    def target(self, gate: str) -> str:
        """The layer that alone takes what a gate gives; empty if there is none."""
        takers = {taker for y in self.given.get(gate, ()) for taker, _ in self.takers.get(y, [("", "")])}
        layer = takers.pop() if len(takers) == 1 else ""
        known = layer in self.layers.values() and sorted(self.taken[layer]) == sorted(self.given[gate])
        return layer if known else ""


def gates_of(model: nn.Module) -> dict[str, Attention]:
    """All attention of the zoo in a network that weighs a map, by its path; parts of another one are none."""
    alone = {n: m for n, m in model.named_modules() if isinstance(m, Attention) and not getattr(m, "part", False)}
    whole = {name for name in alone if any(other.startswith(f"{name}.") for other in alone)}  # harmonious attention
    return {name: module for name, module in alone.items() if name not in whole}


@contextmanager
def calling(model: nn.Module, look: Callable[[str, Attention, Tensor], None]) -> Iterator[None]:
    """Within it, `look(path, attention, x)` is called before each attention that weighs a map `x`."""

    def before(path: str, module: Any, given: Any) -> None:
        look(path, module, given[0])

    hooks = [m.register_forward_pre_hook(partial(before, path)) for path, m in gates_of(model).items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _names(model: nn.Module, kinds: Any, tensor: str) -> dict[int, str]:
    """The name of each module of these kinds by the identity of its tensor, which must be its own alone."""
    found = [
        (id(own), name)
        for name, module in model.named_modules()
        if isinstance(module, kinds) and (own := {**module._parameters, **module._buffers}.get(tensor)) is not None
    ]
    owners = Counter(key for key, _ in found)
    return {key: name for key, name in found if owners[key] == 1}
