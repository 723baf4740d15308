"""Weights of a 2-D ResNet for a volumetric one: each kernel goes into the middle slice of its cube, the rest is zero.

The network then treats each slice as an image of its own, exactly as the 2-D network does, and takes the mean over
slices at the end, so that a volume of equal slices has the image's logits. (A stride over the depth leaves slices out.)
The zeros have gradients from the first step.

Carreira & Zisserman 2017 (arXiv 1705.07750) repeat a kernel over the depth and divide it by its length. Where the
convolution pads the ends of the depth with zeros, that is no longer the 2-D network's function.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

FROM_RESNET = (
    (re.compile(r"^conv1\."), "stem.0."),
    (re.compile(r"^bn1\."), "stem.1."),
    (re.compile(r"^(layer\d+\.\d+)\.conv([12])\."), r"\1.conv\2.0."),
    (re.compile(r"^(layer\d+\.\d+)\.bn([12])\."), r"\1.conv\2.1."),
)
"""Keys of a 2-D ResNet, which timm and torchvision share, and their counterparts in a video ResNet."""


def inflate(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights for `model`, a volumetric ResNet, from those of a 2-D one. Volumetric weights come back as they are.

    Raises ValueError for R(2+1)D: each of its convolutions is two, with channels and a ReLU between them, so none
    of them is the counterpart of a 2-D one.
    """
    if weights.get("conv1.weight", torch.empty(0)).ndim != 4:
        return dict(weights)
    own = model.state_dict()
    if any(key.endswith(".conv1.0.3.weight") for key in own):
        raise ValueError(
            "2-D weights do not inflate into R(2+1)D, whose convolutions are split in two with a ReLU between them; "
            "use r3d_18 or Kinetics weights"
        )
    inflated = {}
    for key, value in weights.items():
        for old, new in FROM_RESNET:
            key = old.sub(new, key)
        inflated[key] = _into_middle(value, own[key].shape[2]) if value.ndim == 4 and key in own else value
    return inflated


def _into_middle(kernel: Tensor, depth: int) -> Tensor:
    """(O, I, H, W) -> (O, I, depth, H, W), zero outside the middle."""
    cube = kernel.new_zeros(*kernel.shape[:2], depth, *kernel.shape[2:])
    cube[:, :, depth // 2] = kernel
    return cube


def adapt_channels(weights: dict[str, Tensor], stem: str, in_chans: int) -> dict[str, Tensor]:
    """Give the first convolution `in_chans` input channels, as timm does for images: the sum for one, else repeated."""
    kernel = weights.get(stem)
    if kernel is None or kernel.shape[1] == in_chans:
        return weights
    if in_chans == 1:
        adapted = kernel.float().sum(1, keepdim=True)
    else:
        channels = torch.arange(in_chans) % kernel.shape[1]
        adapted = kernel.float()[:, channels] * (kernel.shape[1] / in_chans)
    return {**weights, stem: adapted.to(kernel.dtype)}
