"""Watch the attention of a network at work, from outside: no gate knows that it is watched."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention import Attention
from zoo.errors import UserError

Hook = Callable[[str, Attention, Tensor, Any], Any]
"""`hook(path, attention, input, output)`, called when an attention was; what it returns, if not None, is the output."""


Fixed = Mapping[str, Mapping[str, Tensor]]
"""Values to multiply by in place of the gates', by the path of an attention and the name of its gate."""


class ExplainError(UserError, ValueError):
    """What cannot be shown of this network."""


def attention_modules(model: nn.Module) -> dict[str, Attention]:
    """Each attention of a network by its path, such as `layer1.0.se`; not the parts of another one.

    Raises ExplainError for a network without any.
    """
    found: dict[str, Attention] = {}
    for name, module in model.named_modules():
        path = ".".join(part for part in name.split(".") if part != "_orig_mod")  # torch.compile's wrapper
        if isinstance(module, Attention) and not any(path.startswith(f"{whole}.") for whole in found):
            found[path] = module
    if not found:
        raise ExplainError(
            f"{type(model).__name__} has no attention of the zoo, so there are no gates to look at; `zoo list` prints "
            "models that have"
        )
    return found


@contextmanager
def watched(modules: Mapping[str, Attention], hook: Hook) -> Iterator[None]:
    """Have `hook` called whenever one of the modules was called; its hooks are gone afterwards, also after an error."""

    def called(path: str, module: Any, args: Any, output: Any) -> Any:
        return hook(path, module, args[0], output)

    handles = [module.register_forward_hook(partial(called, path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def fixing(fixed: Fixed, names: Mapping[str, Collection[str]]) -> Hook:
    """A hook that weighs the input by the fixed values, and by those of the gates `names` that are not fixed."""

    def weigh(path: str, module: Attention, x: Tensor, output: Any) -> Any:
        own = {} if fixed[path].keys() == set(names[path]) else module.gates(x)
        weighed = x
        for gate in {**own, **fixed[path]}.values():
            weighed = weighed * gate.to(x)
        return (weighed, *output[1:]) if isinstance(output, tuple) else weighed  # harmonious attention has regions

    return weigh


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The network in eval mode and as it was written; then each module in its mode again.

    A compiled network heeds no hook that came after it, so it runs uncompiled here. Where nothing was compiled, torch's
    compiler is not loaded, which would take seconds.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """The same without gradients."""
    with evaluating(model), torch.no_grad():
        yield
