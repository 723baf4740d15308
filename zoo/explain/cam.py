"""Grad-CAM beside the gates, by torchcam: which places spoke for a class."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from zoo.explain.watching import ExplainError, at_rest, evaluating
from zoo.models.shapes import channels_of

INSTALL = "pip install 'timm-attention-zoo[explain]'"


def has_torchcam() -> bool:
    """Whether torchcam is installed."""
    return find_spec("torchcam") is not None


def grad_cam(model: nn.Module, x: Tensor, classes: list[int]) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of one class an input: (B, H, W) of the last map, from 0 to 1.

    As torchcam scales it, by its own smallest and largest value; all 0 where no place speaks for the class. Raises
    ExplainError without torchcam.
    """
    if not has_torchcam():
        raise ExplainError(f"Grad-CAM takes the package torchcam: {INSTALL}")
    from torchcam.methods import GradCAM

    path, channels_last = last_map(model, x)
    turned: dict[str, Any] = {"reshape_transform": lambda y: y.movedim(-1, 1)} if channels_last else {}
    with evaluating(model), torch.enable_grad(), GradCAM(model, path, **turned) as extract:
        (cam,) = extract(classes, model(x.detach().requires_grad_()))  # a frozen network has no other gradient
    return cam.detach()


def last_map(model: nn.Module, x: Tensor) -> tuple[str, bool]:
    """Path of the last module whose output is a map, with places apart, for an input like `x`.

    And whether it is (B, H, W, C), as in Swin. Raises ExplainError if there is none.
    """
    found: list[tuple[str, bool]] = []

    def look(path: str, module: Any, args: Any, y: Any) -> None:
        whole = isinstance(y, Tensor) and y.ndim == x.ndim and len(y) == 1  # hard attention has several crops an input
        if path and whole:
            channels, last = channels_of(y.shape, x.shape[2:], x.ndim - 2)
            if y.numel() > channels:
                found.append((path, last))

    handles = [module.register_forward_hook(partial(look, path)) for path, module in model.named_modules()]
    try:
        with at_rest(model):
            model(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        size = "x".join(map(str, x.shape[2:]))
        raise ExplainError(f"{type(model).__name__} has no map with more than one place for inputs of {size}")
    return found[-1]
