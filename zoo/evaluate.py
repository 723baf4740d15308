"""Evaluation of a classifier: accuracy, per-class figures, confusion and calibration."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from timm.data import create_loader
from torch import Tensor, nn

from zoo.data import DataError, Images
from zoo.loading import Trained

BINS = 15
"""Confidence bins of the calibration error (Guo et al. 2017, arXiv 1706.04599, section 5)."""


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
    ece: float
    """Expected calibration error over BINS bins, percent: how far the confidence is from the accuracy."""
    confusion: Tensor
    """(classes, classes) counts; row is the true class, column the predicted one."""

    @cached_property
    def per_class(self) -> list[float]:
        """Recall of each class in percent; nan for a class without images."""
        return (100 * self.confusion.diag() / self.confusion.sum(1)).tolist()

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have images or predictions, in percent."""
        both = self.confusion.sum(0) + self.confusion.sum(1)
        return (200 * self.confusion.diag() / both)[both > 0].mean().item()


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Score `model` on batches of images (B, C, H, W) and class indices (B,); leaves it in the mode it was in."""
    was_training = model.training
    model.eval()
    loss = top5 = 0.0
    confusion = confidences = hits = torch.zeros(())
    for images, labels in loader:
        logits = model(images).float()
        classes = logits.shape[1]
        confidence, guess = logits.softmax(1).max(1)
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        hit = (guess == labels).float()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        top5 += (logits.topk(min(5, classes)).indices == labels[:, None]).any(1).sum().item()
        confusion = (
            confusion + torch.bincount(labels * classes + guess, minlength=classes**2).view(classes, classes).cpu()
        )
        confidences = confidences + torch.bincount(bins, confidence, BINS).cpu()
        hits = hits + torch.bincount(bins, hit, BINS).cpu()
    model.train(was_training)
    n = int(confusion.sum())
    top1, ece = confusion.diag().sum().item(), (confidences - hits).abs().sum().item()
    return Score(loss / n, 100 * top1 / n, 100 * top5 / n, n, 100 * ece / n, confusion)


def evaluate_images(
    trained: Trained, images: Images, classes: tuple[str, ...], batch_size: int = 64, workers: int = 0
) -> Score:
    """Score a trained model on images whose label i means `classes[i]`.

    Classes are matched to the model's by name where it knows names; ImageNet's are WordNet ids. Where no name of the
    data is one of the model's, as many classes as the model has are taken in sorted order. Raises DataError.
    """
    indices = _match(trained, classes)
    matched = Images(images.images, [indices[label] for label in images.labels])
    loader = create_loader(
        matched,  # pyright: ignore[reportArgumentType]
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=False,
        device=next(trained.network.parameters()).device,
        **{key: trained.config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    return evaluate(trained.network, loader)  # pyright: ignore[reportArgumentType]


def _match(trained: Trained, classes: tuple[str, ...]) -> list[int]:
    known = {name: index for index, name in enumerate(trained.labels)}
    strangers = [name for name in classes if name not in known]
    if not strangers:
        return [known[name] for name in classes]
    if len(strangers) == len(classes) == trained.network.num_classes:
        return list(range(len(classes)))
    raise DataError(
        f"the data's class {strangers[0]!r} is none of the {trained.network.num_classes} that {trained.source} knows; "
        "name the class folders as in the label_names of its config.json"
    )
