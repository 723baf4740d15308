"""Do maps point at the evidence, where that is known: the pointing game (Zhang et al. 2016, arXiv 1608.00507).

On planted images (zoo/data/planted.py) the shape alone decides the class, so a network that knows the class has looked
at it. A map hits if its largest value lies in the shape's box, or within a margin of it. It is counted for the gates,
for Grad-CAM and for random values alike.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import create_transform
from torch import Tensor

from zoo.data.planted import SIDE, Planted, draw_planted
from zoo.explain.faithfulness import MAPS
from zoo.explain.watching import at_rest
from zoo.inference import Trained

MARGIN = 2
"""Pixels around the box: half of what one place of a map of 8x8 covers."""


def hits(maps: Tensor, planted: Sequence[Planted]) -> Tensor:
    """Whether each map (B, H, W) is largest at the shape: (B,) of bool."""
    fine = F.interpolate(maps[:, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    rows, columns = fine.flatten(1).argmax(1) // SIDE, fine.flatten(1).argmax(1) % SIDE
    left, top, right, bottom = torch.tensor([each.box for each in planted], device=maps.device).T
    across = (columns >= left - MARGIN) & (columns <= right + MARGIN)
    return across & (rows >= top - MARGIN) & (rows <= bottom + MARGIN)


def pointing_game(trained: Trained, count: int = 200, seed: int = 1) -> dict[str, float]:
    """The share of planted images in which the gates, Grad-CAM and random values peak at the shape.

    For the default seed they are the first images of the test part of the data `planted`. Raises ExplainError for
    attention without maps over places.
    """
    planted = draw_planted(count, seed)
    transform: Any = create_transform(**trained.config)  # pyright: ignore[reportCallIssue]
    x = torch.stack([transform(each.image) for each in planted])
    network = trained.network
    with at_rest(network):
        answers = network(x).argmax(1).tolist()
    return {name: hits(make(network, x, answers), planted).float().mean().item() for name, make in MAPS.items()}
