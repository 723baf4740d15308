"""Ways to make the gates of a network that is fine-tuned attend: what each changes while the network trains.

Each is a context manager around training, and around measuring where the network then computes something else.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from timm.models.efficientnet import EfficientNet
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from zoo.attention import Attention
from zoo.attention.cbam import ChannelGate
from zoo.attention.kernels import kernels

SHARE = 0.3
"""Of the updates of gate dropout in which the gates are held."""


FASTER = {"twice the learning rate": 2e-3, "four times the learning rate": 4e-3}
"""They wake nothing: whether a gain is one of attention or of faster learning."""


@contextmanager
def gate_dropout() -> Iterator[None]:
    """In SHARE of the updates all gates are held at their averages over the batch, so images differ by the others."""
    drops = False
    coin = random.Random(0)

    def begin(module: Any, args: Any) -> None:
        nonlocal drops
        if isinstance(module, EfficientNet):
            drops = module.training and coin.random() < SHARE

    def hold(module: Any, args: Any, output: Any) -> Any:
        if not drops or not isinstance(module, Attention) or getattr(module, "part", False):
            return None
        (x,) = args
        for gate in module.gates(x).values():
            x = x * gate.mean(0, keepdim=True)
        return x

    handles = [register_module_forward_pre_hook(begin), register_module_forward_hook(hold)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def undecayed_gates() -> Iterator[None]:
    """No weight decay on what belongs to a gate, as timm's `no_weight_decay` of a model says it."""

    def names(model: Any) -> set[str]:
        return {f"{site.gate}.*" for site in getattr(model, "gate_sites", ())}

    network: Any = EfficientNet
    network.no_weight_decay = names
    try:
        yield
    finally:
        del network.no_weight_decay


@contextmanager
def standard_squeeze() -> Iterator[None]:
    """What channel gates squeeze in units of its spread over the batch, around its mean there; measured so, too.

    So what judges it must come in a random order, as training images do: a batch of one class has its mean taken away.
    """
    squeeze = ChannelGate.squeeze

    def standardised(self: ChannelGate, x: Tensor) -> Tensor:
        squeezed = squeeze(self, x)
        return (squeezed - squeezed.mean(1, keepdim=True)) / (squeezed.std(1, keepdim=True, correction=0) + 1e-3)

    ChannelGate.squeeze = standardised
    try:
        with kernels("off"):  # which know the usual squeeze
            yield
    finally:
        ChannelGate.squeeze = squeeze


@dataclass(frozen=True)
class Way:
    """How a run differs from the usual one."""

    within: Callable[[], AbstractContextManager[None]] = nullcontext
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe."""


WAYS = {
    "usual": Way(),
    "behind stages": Way(changes={"model": "tf_efficientnet_lite0", "attention": "cbam", "where": "stages"}),
    "gate dropout": Way(gate_dropout),
    "gates first and longer": Way(changes={"head_epochs": 3, "epochs": 9}),
    "no decay on gates": Way(undecayed_gates),
    "standard squeeze": Way(standard_squeeze),
    **{way: Way(changes={"lr": rate}) for way, rate in FASTER.items()},
}
