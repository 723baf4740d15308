"""The excitation of SE and of CBAM's channel gate: two fully connected layers with a bottleneck between them.

The layers act on axis 1 of a summary (B, C, 1, 1), or (B, C, D, 1, 1) where each slice of a volume keeps its own.
"""

from typing import Unpack

import torch
from torch import nn

from zoo.attention.arguments import require_positive
from zoo.attention.contract import Factory
from zoo.attention.dimensions import pooled_axes
from zoo.attention.gate import Gate, zero_


def hidden_width(channels: int, reduction: int) -> int:
    """Width of the excitation's bottleneck: channels / reduction rounded down (SE section 3.2), never below 1."""
    return max(1, channels // require_positive("reduction", reduction))


class ChannelExcitation(Gate):
    """A gate whose logits come from `W2 relu(W1 z + b1) + b2` for a summary z (B, C) of the channels."""

    weighs = "channel"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = True,
        keep_depth: bool = False,
        dims: int = 2,
        act_layer: type[nn.Module] = nn.ReLU,
        neutral: bool = False,
        **factory: Unpack[Factory],
    ) -> None:
        super().__init__(neutral, **factory)
        self.axes = pooled_axes(dims, keep_depth)
        hidden = hidden_width(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=bias, **factory)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels, bias=bias, **factory)
        if neutral:
            self.wake()

    def wake(self) -> None:
        """Make the hidden biases positive, so that no hidden unit is dead before training begins."""
        # A new block's batch norm leaves a mean over space near 0, whatever the image: what reaches a hidden unit is
        # its bias and little else. Half of the biases are drawn below 0, and their units would pass on neither an image
        # nor a gradient (scripts/dead_gates.py).
        if self.fc1.bias is not None:
            with torch.no_grad():
                self.fc1.bias.abs_()

    def has_plain_layers(self) -> bool:
        """Whether the layers are those that the kernels know: what was put in place of one is called."""
        return type(self.fc1) is type(self.fc2) is nn.Linear and type(self.act) is nn.ReLU

    def make_constant(self) -> float:
        """The sigmoid becomes 1/2."""
        # Its first hidden unit becomes 1 for every input, so that no input can leave the whole ReLU layer dead; it
        # learns its weights from there. Without a bias there is nothing to set.
        if self.fc1.bias is not None:
            with torch.no_grad():
                self.fc1.weight[0] = 0
                self.fc1.bias[0] = 1
        zero_(self.fc2)
        return self.start * self.scale
