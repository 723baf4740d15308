"""What a model costs: parameters and multiply-accumulates, counted as the papers and their re-implementations do."""

from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from zoo.attention import ChannelGate, SoftAttention
from zoo.data.input_spec import input_spec


def parameter_count(model: nn.Module) -> int:
    """Number of learnable values of a model or a part of one."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one input (C, H, W) or (C, D, H, W).

    Biases, norms, activations, pooling and element-wise products are not counted. Counted are the formulas: CBAM's
    shared MLP once for each of its pools, though its second layer runs once (zoo/attention/cbam.py), and soft
    attention's last convolution at every place, though it runs once an image (zoo/attention/harmonious.py).
    Runs on the meta device if the model is there, which costs no memory.
    """
    total = 0
    repeats: dict[nn.Module, int] = {m.fc2: m.pools for m in model.modules() if isinstance(m, ChannelGate)}

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features * repeats.get(module, 1)
        elif isinstance(module, SoftAttention):
            total += output.numel() * module.conv.in_channels
        else:
            assert isinstance(module, nn.modules.conv._ConvNd)
            total += output.numel() * module.weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd | SoftAttention)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    device = next(model.parameters()).device
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_size, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return total


@cache
def cost(name: str) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the model that timm has under `name`, at its own input size."""
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    return parameter_count(model), macs(model, input_spec(model).shape)
