"""What a network computes for two fixed inputs: equal logits say that the same weights sit in the same network."""

from typing import Any

import torch
from torch import Tensor

from zoo.data.input_spec import input_spec


@torch.inference_mode()
def probe(network: Any) -> Tensor:
    """Logits (2, num_classes) of a network in eval mode for two inputs of seeded noise, in the size that it takes."""
    generator = torch.Generator().manual_seed(0)
    return network.eval()(torch.randn(2, *input_spec(network).shape, generator=generator))
