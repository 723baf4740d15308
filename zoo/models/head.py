"""The classifier of a model: a new one that starts quietly, and a trained one brought into another order of classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

QUIET = 0.01
"""Standard deviation of a new classifier's weights."""


def quiet_head(model: Any) -> Any:
    """Let a new classifier begin with nearly equal probabilities; returns the model, any of timm's.

    timm's initialisation of MobileNets is for training from scratch: with few classes it gives logits so large that
    their gradients do more harm to trained layers than all of fine-tuning does good.
    """
    for head in classifiers(model):
        nn.init.normal_(head.weight, std=QUIET)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    return model


def classifiers(model: Any) -> list[nn.Linear | nn.Conv2d]:
    """The layers that give a model's logits; more than one in networks with branches, none if it gives features."""
    found = model.get_classifier()
    heads = found if isinstance(found, tuple | list) else (found,)
    return [head for head in heads if isinstance(head, nn.Linear | nn.Conv2d)]


@torch.no_grad()
def order_head(model: Any, order: Sequence[int]) -> None:
    """Let output i be what output `order[i]` was. Raises ValueError if the classifier is no layer of its own."""
    heads = classifiers(model)
    if not heads and list(order) != list(range(len(order))):
        raise ValueError(
            f"the classifier of {type(model).__name__} is no single layer, so its classes keep their order"
        )
    for head in heads:
        head.weight.copy_(head.weight[list(order)])
        if head.bias is not None:
            head.bias.copy_(head.bias[list(order)])
