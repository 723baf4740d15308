"""Evaluation of a classifier: accuracy, per-class figures, confusion and calibration."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data import DataError
from zoo.data.input_spec import input_spec
from zoo.data.kinds import Way, kind_of
from zoo.data.loaders import Batch
from zoo.inference.class_names import match_classes
from zoo.inference.trained import Trained
from zoo.models.macs import parameter_count
from zoo.processes import World

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
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Score:
    """Score `model` on normalised images (B, C, H, W) and class indices (B,); leaves it in the mode it was in.

    Each process of `world` brings batches of its own, as many as it has, and all get the score of the whole.
    """
    was_training = model.training
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    classes: int = model.num_classes  # pyright: ignore
    # Sums stay on the device, so that no batch waits for the one before it.
    loss, top5, confidences, hits = (torch.zeros(n, device=device) for n in (1, 1, BINS, BINS))
    confusion = torch.zeros(classes**2, dtype=torch.long, device=device)
    for images, labels in batches:
        with autocast():
            logits = model(images)
        logits = logits.float()
        confidence, guess = logits.softmax(1).max(1)
        bins = (confidence.nan_to_num() * BINS).long().clamp(max=BINS - 1)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        top5 += (logits.topk(min(5, classes)).indices == labels[:, None]).any(1).sum()
        confusion += torch.bincount(labels * classes + guess, minlength=classes**2)
        confidences += torch.bincount(bins, confidence, BINS)
        hits += torch.bincount(bins, (guess == labels).float(), BINS)
    model.train(was_training)
    if world:
        loss, top5, confidences, hits, confusion = map(world.sum, (loss, top5, confidences, hits, confusion))
    confusion = confusion.view(classes, classes).cpu().float()
    if not (n := int(confusion.sum())):
        raise DataError("there are no images to evaluate on")
    top1, ece = confusion.diag().sum().item(), (confidences - hits).abs().sum().item()
    return Score(loss.item() / n, 100 * top1 / n, 100 * top5.item() / n, n, 100 * ece / n, confusion)


class Matched(Iterable[Batch]):
    """Held-out batches whose labels are a model's class indices; they can be gone over again."""

    def __init__(self, batches: Iterable[Batch], indices: list[int]) -> None:
        self.batches, self.indices = batches, torch.tensor(indices)

    def __iter__(self) -> Iterator[Batch]:
        for pixels, labels in self.batches:
            yield pixels, self.indices.to(labels.device)[labels]


def matched_batches(
    trained: Trained,
    images: Any,
    classes: tuple[str, ...],
    batch_size: int = 64,
    workers: int = 0,
    by_order: bool = False,
) -> Matched:
    """Batches of (image, label) pairs whose label i means `classes[i]`, as a trained model takes them.

    Classes are matched to the model's by name; ImageNet's are WordNet ids. `by_order` takes the model's class i for
    class i of the data instead, whatever they are called. Raises DataError with both lists where that cannot be.
    """
    device, spec, held = next(trained.network.parameters()).device, input_spec(trained.network), kind_of(images)
    if held is not spec.kind:
        raise DataError(f"the data holds {held.many} and {trained.source} takes {spec.kind.many}; give others")
    count: int = trained.network.num_classes
    otherwise = "name the class folders as in the label_names of its config.json"
    if len(classes) == count:
        otherwise += ", or take its class i for class i of the data by --by-order"
    indices = match_classes(classes, trained.labels, count, trained.source, otherwise, by_order)
    return Matched(spec.kind.held_out(images, trained.config, spec.shape, Way(device, batch_size, workers)), indices)


def evaluate_images(
    trained: Trained,
    images: Any,
    classes: tuple[str, ...],
    batch_size: int = 64,
    workers: int = 0,
    by_order: bool = False,
) -> Score:
    """Score a trained model on images, as `matched_batches` takes them."""
    return evaluate(trained.network, matched_batches(trained, images, classes, batch_size, workers, by_order))


def append_results(path: Path, trained: Trained, score: Score) -> None:
    """Append a row to a CSV file in the columns of timm's results/: percent, parameters in millions, pixels."""
    sides = input_spec(trained.network).size
    row = {
        "model": trained.source,
        "top1": f"{score.top1:.3f}",
        "top1_err": f"{100 - score.top1:.3f}",
        "top5": f"{score.top5:.3f}",
        "top5_err": f"{100 - score.top5:.3f}",
        "param_count": f"{parameter_count(trained.network) / 1e6:.2f}",
        "img_size": "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1])),
        "crop_pct": trained.config["crop_pct"],
        "interpolation": trained.config["interpolation"],
    }
    head = ",".join(row)
    if path.exists() and path.read_text().partition("\n")[0] != head:
        raise DataError(f"{path} has other columns than {head}; give another file")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)
