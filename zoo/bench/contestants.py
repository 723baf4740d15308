"""The networks that are timed beside each other, each by a word: ours, the plain one, timm's gates, pytorchcv's."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers.cbam import CbamModule
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import nn

from zoo.attention import CBAM, ECA, Attention, SqueezeExcite
from zoo.data.input_spec import InputSpec, input_spec
from zoo.errors import UserError
from zoo.models.plain_network import plain_network
from zoo.weights.known import require_model

WORDS = "plain, timm, timm:NAME, pytorchcv, pytorchcv:NAME"


class BenchError(UserError, ValueError):
    """What cannot be timed as asked."""


@dataclass(frozen=True)
class Contestant:
    """A network by its name in tables, and how to build it, from random weights."""

    name: str
    build: Callable[[], nn.Module]


def contestants(model: str, against: list[str]) -> tuple[list[Contestant], InputSpec]:
    """The networks of these words, in their order, then `model`; and what it takes. Raises BenchError."""
    require_model(model)
    spec = input_spec(timm.create_model(model))
    others = [_other(word.strip(), model) for word in against]
    found = [*others, Contestant(model, lambda: timm.create_model(model))]
    if len({each.name for each in found}) < len(found):
        raise BenchError(f"{model} would be timed against itself or a network twice; name each once")
    return found, spec


def _other(word: str, model: str) -> Contestant:
    kind, colon, name = word.partition(":")
    if kind == "plain" and not colon:
        plain = plain_network(model, weights="none")
        return Contestant(plain, lambda: timm.create_model(plain))
    if kind == "timm" and colon:
        require_model(name)
        return Contestant(word, lambda: timm.create_model(name))
    if kind == "timm":
        return Contestant("timm's gates", lambda: with_timms_gates(timm.create_model(model)))
    if kind == "pytorchcv":
        name = name or model.replace("se_", "se", 1)
        require_pytorchcv(name)
        return Contestant(f"pytorchcv:{name}", lambda: _pytorchcv(name))
    raise BenchError(f"cannot time against {word!r}; choices are {WORDS}")


def with_timms_gates(network: Any) -> nn.Module:
    """The network, with timm's module of the same name in the place of each gate. Raises BenchError."""
    for path, module in list(network.named_modules()):
        if isinstance(module, Attention) and not getattr(module, "part", False):
            network.set_submodule(path, _of_timm(module))
    return network


def _of_timm(gate: nn.Module) -> nn.Module:
    """timm's module for a gate of ours, with as many hidden units."""
    if isinstance(gate, SqueezeExcite) and len(gate.axes) == 2:
        return SEModule(gate.fc1.in_features, rd_channels=gate.fc1.out_features)
    if isinstance(gate, CBAM) and gate.channel is not None and len(gate.channel.axes) == 2:
        return CbamModule(gate.channel.fc1.in_features, rd_channels=gate.channel.fc1.out_features)
    if isinstance(gate, ECA):
        return EcaModule(kernel_size=gate.conv.kernel_size[0])
    raise BenchError(f"timm has no {type(gate).__name__} for these maps; it has SE, CBAM and ECA for images")


def require_pytorchcv(name: str) -> None:
    """Raise BenchError unless pytorchcv is installed and has a network of this name."""
    try:
        from pytorchcv import model_provider  # pyright: ignore[reportMissingImports]  (the extra `bench`)
    except ImportError:
        raise BenchError('pytorchcv is not installed; pip install "timm-attention-zoo[bench]"') from None
    known = model_provider._models
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "its README lists its networks"
        raise BenchError(f"pytorchcv has no network {name!r}; {hint} Give pytorchcv:NAME")


def _pytorchcv(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model  # pyright: ignore[reportMissingImports]

    return get_model(name)


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Norms as in a trained network: a new one ends its branches with zeros, which are quicker than numbers."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.1)
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model
