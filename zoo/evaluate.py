"""Evaluation: loss and accuracy of a classifier over a loader."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Score:
    """What an evaluation measured."""

    loss: float
    """Mean cross-entropy, in nats."""
    top1: float
    """Percent."""
    top5: float
    """Percent; with fewer than five classes the true one is always among them."""
    n: int
    """Images."""


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Score `model` on batches of images (B, C, H, W) and class indices (B,); leaves it in the mode it was in."""
    was_training = model.training
    model.eval()
    loss = top1 = top5 = n = 0
    for images, labels in loader:
        logits = model(images).float()
        ranks = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        top1 += ranks[:, 0].sum().item()
        top5 += ranks.any(1).sum().item()
        n += len(labels)
    model.train(was_training)
    return Score(loss / n, 100 * top1 / n, 100 * top5 / n, n)
