"""What a tool is given: a network that is built by name, always with the same weights; and what it is held to."""

import copy
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.input_spec import input_spec
from zoo.data.kinds import VOLUMES
from zoo.models.switches import attention_switches

SIDE = 64
"""Height and width of the inputs, or the network's own if that is smaller."""


class Make:
    """Builds a network by its name, always with the same weights, in eval mode."""

    def __init__(self, name: str, **options: Any) -> None:
        """`options` of timm.create_model hold for every network that it builds."""
        self.name, self.options = name, options
        self.network = self.fresh()
        for norm in self.network.modules():  # a fresh ResNet computes nothing: its last norms are zero
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                for values, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -0.1, 0.1)):
                    nn.init.uniform_(values, low, high)

    def fresh(self, **options: Any) -> Any:
        """A network as timm makes it, for options with which the weights do not fit."""
        torch.manual_seed(0)
        return timm.create_model(self.name, **self.options, **options).eval()

    def __call__(self, **options: Any) -> Any:
        """A network with the weights, loaded by timm where there are options."""
        if not options:
            return copy.deepcopy(self.network)
        weights = {"state_dict": self.network.state_dict(), "num_classes": self.network.num_classes}
        if switches := attention_switches(self.network):
            options["attn_kwargs"] = switches
        return self.fresh(pretrained=True, pretrained_cfg_overlay=weights, **options)

    def inputs(self) -> Tensor:
        """Two of them, always the same."""
        torch.manual_seed(1)
        spec = input_spec(self.network)
        side = min(spec.size[-1], SIDE)
        return torch.randn(2, spec.channels, *((8, 32, 32) if spec.kind is VOLUMES else (side, side)))


Tool = Callable[[Make, Tensor], None]


def require_same(found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    """Raise AssertionError unless two tensors, or lists of them, are equal up to a share of their size.

    The share is that by which random deep networks differ from themselves in double precision, and more.
    """
    if not isinstance(found, Tensor):
        assert len(found) == len(expected), f"{len(found)} tensors where {len(expected)} were expected"
        for one, other in zip(found, expected, strict=True):
            require_same(one, other, tolerance)
        return
    assert found.shape == expected.shape, f"shape {tuple(found.shape)} where {tuple(expected.shape)} was expected"
    away = ((found.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12)).item()
    assert away <= tolerance, f"differs by {away:.1g} of its size"


def learn(model: Any, x: Tensor) -> None:
    """One step of training; each parameter that wants a gradient must get a finite one."""
    model.train()
    F.cross_entropy(model(x).float(), torch.tensor([0, 1])).backward()
    got = [p.grad is not None and p.grad.isfinite().all().item() for p in model.parameters() if p.requires_grad]
    assert got and all(got), f"{got.count(False)} of {len(got)} parameters have no finite gradient"


def stages(make: Make, x: Tensor) -> list[Tensor]:
    """The maps that a network's features are."""
    return make().forward_intermediates(x, intermediates_only=True)


def larger(x: Tensor) -> Tensor:
    """Three inputs of another height and width."""
    return F.interpolate(torch.cat((x, x))[:3], scale_factor=(1.5, 2.0) if x.ndim == 4 else (1.0, 1.5, 2.0))
