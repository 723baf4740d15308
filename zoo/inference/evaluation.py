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
from zoo.data.kinds import Way, kind_of
from zoo.data.loaders import Batch
from zoo.inference.class_names import match_classes
from zoo.inference.device import autocast
from zoo.inference.trained import Trained
from zoo.processes import World

BINS = 15
"""Confidence bins of the calibration error (Guo et al. 2017, arXiv 1706.04599, section 5)."""


COLUMNS = (
    "model",
    "top1",
    "top1_err",
    "top5",
    "top5_err",
    "param_count",
    "img_size",
    "crop_pct",
    "interpolation",
)
"""Of timm's results."""


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
    spec, held = trained.spec, kind_of(images)
    if held is not spec.kind:
        raise DataError(f"the data holds {held.many} and {trained.source} takes {spec.kind.many}; give others")
    count: int = trained.network.num_classes
    otherwise = "name the class folders as in the label_names of its config.json"
    if len(classes) == count:
        otherwise += ", or take its class i for class i of the data by --by-order"
    indices = match_classes(classes, trained.labels, count, trained.source, otherwise, by_order)
    return Matched(
        spec.kind.held_out(images, trained.config, spec.shape, Way(trained.device, batch_size, workers)), indices
    )


def evaluate_images(
    trained: Trained,
    images: Any,
    classes: tuple[str, ...],
    batch_size: int = 64,
    workers: int = 0,
    by_order: bool = False,
    amp: str = "off",
) -> Score:
    """Score a trained model on images, as `matched_batches` takes them; `amp` is off, bf16 or fp16."""
    batches = matched_batches(trained, images, classes, batch_size, workers, by_order)
    return evaluate(trained.network, batches, autocast=autocast(trained.device, amp))


def require_results(path: Path) -> None:
    """Raise DataError unless `append_results` can write to this file, which is better known before measuring."""
    if path.is_dir() or not path.parent.is_dir():
        raise DataError(f"cannot write {path}: {'it is a folder' if path.is_dir() else f'there is no {path.parent}'}")
    if path.exists() and path.read_bytes().partition(b"\n")[0].decode(errors="replace") != ",".join(COLUMNS):
        raise DataError(f"{path} has other columns than {','.join(COLUMNS)}; give another file")


def append_results(path: Path, trained: Trained, score: Score) -> None:
    """Append a row to a CSV file in the columns of timm's results/: percent, parameters in millions, pixels."""
    sides = trained.spec.size
    row = (
        trained.source,
        f"{score.top1:.3f}",
        f"{100 - score.top1:.3f}",
        f"{score.top5:.3f}",
        f"{100 - score.top5:.3f}",
        f"{trained.parameters / 1e6:.2f}",
        "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1])),
        trained.config["crop_pct"],
        trained.config["interpolation"],
    )
    require_results(path)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([row] if file.tell() else [COLUMNS, row])
