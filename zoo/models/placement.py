"""Where a gate goes in a timm network.

A placement function takes a plain network and a factory of gates, puts gates in, and returns their sites. It adds
modules under new names and renames as few of the plain network's parameters as it can, so that plain checkpoints
still fit (zoo/models/warm_start.py).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate

import torch
from torch import nn

from zoo.attention import Attention

Network = Any
"""A timm network or a part of one: an nn.Module whose attributes (`se`, `bn2`, `feature_info`) no type names."""

MakeGate = Callable[..., Attention]
"""`make_gate(channels, device=..., dtype=...)` returns a new gate."""


@dataclass(frozen=True)
class Site:
    """One gate in a network."""

    gate: str
    """Module name of the gate."""
    renamed: tuple[str, str] | None = None
    """Prefix of the plain network's parameters that moved when the gate came in, and the new prefix."""


Placement = Callable[Concatenate[Network, MakeGate, ...], list[Site]]
"""A placement function; what it takes besides, with a default, is open to `attn_kwargs`."""


def _like(module: Network) -> dict[str, torch.device | torch.dtype]:
    """Device and dtype of a module, as keywords for a gate beside it."""
    parameter = next(module.parameters())
    return {"device": parameter.device, "dtype": parameter.dtype}


def _blocks(model: Network, child: str) -> list[tuple[str, Network]]:
    """Names and blocks of a timm network, first to last; a block is a module that has a `child` of this name."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, child)]


def _projection(block: Network) -> nn.Conv2d:
    """The 1x1 convolution that ends a MobileNet block, of version 1 to 4."""
    if hasattr(block, "pw_proj"):
        return block.pw_proj.conv
    return block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw


def at_branch_ends(model: Network, make_gate: MakeGate) -> list[Site]:
    """ResNet: in timm's attention slot, after the residual branch's last batch norm, before the addition."""
    sites = []
    for name, block in _blocks(model, "downsample"):
        if getattr(block, "se", None) is not None:
            raise ValueError(f"{name} already has attention; leave attn_layer out of block_args and pass attn_kwargs")
        conv = block.conv3 if hasattr(block, "conv3") else block.conv2
        block.se = make_gate(conv.out_channels, **_like(conv))
        sites.append(Site(f"{name}.se"))
    return sites


def in_se_slots(model: Network, make_gate: MakeGate) -> list[Site]:
    """MobileNet: in timm's `se` slot of each block, in front of the projection, mostly behind a depthwise layer."""
    sites = []
    for name, block in _blocks(model, "se"):
        conv = _projection(block)
        block.se = make_gate(conv.in_channels, **_like(conv))
        sites.append(Site(f"{name}.se"))
    return sites


def behind_se(model: Network, make_gate: MakeGate) -> list[Site]:
    """MobileNetV3: behind each squeeze-and-excitation it already has, which stays as the channel gate."""
    sites = []
    for name, block in _blocks(model, "conv_dw"):
        if isinstance(block.se, nn.Identity):
            continue
        conv = _projection(block)
        spatial = make_gate(conv.in_channels, **_like(conv))
        block.se = nn.Sequential(OrderedDict(channel=block.se, spatial=spatial))
        sites.append(Site(f"{name}.se.spatial", (f"{name}.se.", f"{name}.se.channel.")))
    return sites


def after_pointwise(model: Network, make_gate: MakeGate) -> list[Site]:
    """MobileNetV1: after each pointwise convolution, its batch norm and its activation (SE paper, 4.7 M parameters).

    The gate ends the block, so it follows timm's fused norm-and-activation layer. (Inside of that, tools which replace
    norms, such as timm's `freeze`, would not look for the gate's own.)
    """
    sites = []
    for name, block in _blocks(model, "conv_dw"):
        gate = make_gate(block.conv_pw.out_channels, **_like(block.conv_pw))
        block.bn2 = nn.Sequential(OrderedDict(norm=block.bn2, gate=gate))
        sites.append(Site(f"{name}.bn2.gate", (f"{name}.bn2.", f"{name}.bn2.norm.")))
    return sites


def after_depthwise_and_pointwise(model: Network, make_gate: MakeGate) -> list[Site]:
    """MobileNetV1: after every convolution but the stem (CBAM paper, 5.07 M parameters)."""
    return in_se_slots(model, make_gate) + after_pointwise(model, make_gate)


def at_volume_branch_ends(model: Network, make_gate: MakeGate) -> list[Site]:
    """Video ResNet: appended to the residual branch, after its last batch norm, before the addition."""
    sites = []
    for name, block in _blocks(model, "downsample"):
        norm, end = block.conv2[-1], len(block.conv2)
        block.conv2.append(make_gate(norm.num_features, **_like(norm)))
        sites.append(Site(f"{name}.conv2.{end}"))
    return sites


def _strides(model: Network) -> list[tuple[str, str, int]]:
    """The network's last strides, three at most: the stage in front of each, the stage that begins with it, and the
    channels between the two."""
    stages = [info for info in model.feature_info if info["module"].startswith(("layer", "blocks"))]
    found = [(info["module"], info["num_chs"]) for info in stages[:-1][-3:]]
    return [(name, f"{name[:-1]}{int(name[-1]) + 1}", channels) for name, channels in found]


def at_strides(model: Network, make_gate: MakeGate, place: str = "before") -> list[Site]:
    """Any network: a gate "before" (BAM paper, section 3.2) or "after" each of its last strides, three at most.

    Raises ValueError for another `place`.
    """
    places = {"before": _before_strides, "after": _after_strides}
    if place not in list(places):
        raise ValueError(f"place must be one of {', '.join(places)}, not {place!r}")
    return places[place](model, make_gate)


def _before_strides(model: Network, make_gate: MakeGate) -> list[Site]:
    """Appended to the stages in front of the strides."""
    sites = []
    for name, _, channels in _strides(model):
        stage = model.get_submodule(name)
        gate: Network = make_gate(channels, **_like(stage))
        gate.feature_info = _FeatureInfo(channels)
        sites.append(Site(f"{name}.{len(stage)}"))
        stage.append(gate)
    return sites


def _after_strides(model: Network, make_gate: MakeGate) -> list[Site]:
    """Right behind the block that has the stride (an ablation of BAM's place)."""
    sites = []
    for _, following, _ in _strides(model):
        stage = model.get_submodule(following)
        block: Network = stage[0]
        *_, last = (module for module in block.modules() if isinstance(module, nn.modules.conv._ConvNd))
        gate = make_gate(last.out_channels, **_like(block))
        stage[0] = nn.Sequential(OrderedDict(block=block, gate=gate))
        sites.append(Site(f"{following}.0.gate", (f"{following}.0.", f"{following}.0.block.")))
    return sites


@dataclass(frozen=True)
class _FeatureInfo:
    """The `feature_info` of a gate that ends a stage: timm asks a MobileNet stage's last block when it prunes."""

    num_chs: int

    def __call__(self, location: str) -> dict[str, str | int]:
        return {"module": "", "num_chs": self.num_chs}
