"""A finished run asked again: its answers on what it held out, and what its attention does there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from zoo.data import DataError, Images
from zoo.data.sheet import denormalised
from zoo.errors import UserError
from zoo.explain.gate_report import GateReport, gate_report
from zoo.explain.maps import attention_maps
from zoo.explain.view import mean_map
from zoo.explain.watching import ExplainError, at_rest
from zoo.inference import Trained, load_trained, matched_batches, open_part
from zoo.inference.device import pick_device
from zoo.training.run_directory import read_facts

MOST = 2000
"""Images that a run is asked again about, spread over what it held out, so that a report costs seconds."""


@dataclass(frozen=True)
class Look:
    """What a network answers on held-out images, and what its gates do."""

    trained: Trained
    classes: tuple[str, ...]
    """Names by index of the model."""
    words: str
    """What the images are."""
    whole: int
    """Of these there are so many; no more than MOST were looked at."""
    batches: Any
    """Normalised images and class indices; they can be gone over again."""
    probabilities: Tensor
    """(N, classes)."""
    labels: Tensor
    gates: GateReport | None
    """None for a network without attention."""

    @property
    def n(self) -> int:
        return len(self.labels)

    @cached_property
    def confidence(self) -> Tensor:
        return self.probabilities.max(1).values

    @cached_property
    def answers(self) -> Tensor:
        return self.probabilities.argmax(1)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts (classes, classes): row the true class, column the answer."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.answers, minlength=count**2).view(count, count).numpy()

    def worst_mistakes(self, most: int = 8) -> list[int]:
        """Indices of wrong answers, the most confident first."""
        wrong = (self.answers != self.labels).nonzero()[:, 0]
        return wrong[self.confidence[wrong].argsort(descending=True)][:most].tolist()

    def images(self, indices: Sequence[int]) -> Tensor:
        """Those of the inputs, normalised."""
        wanted, found, first = set(indices), {}, 0
        for x, _ in self.batches:
            found |= {k: x[k - first] for k in wanted if first <= k < first + len(x)}
            first += len(x)
            if len(found) == len(wanted):
                break
        return torch.stack([found[k] for k in indices])

    def shown(self, indices: Sequence[int]) -> np.ndarray:
        """The same as they are to be seen, (B, H, W, 3)."""
        return denormalised(self.images(indices), self.trained.config)

    def attention(self, indices: Sequence[int]) -> np.ndarray | None:
        """What attention does to the places of those images, (B, H, W), 1 where nothing; None without such maps."""
        x = self.images(indices)
        try:
            found = mean_map(attention_maps(self.trained.network, x), tuple(x.shape[2:]))
        except ExplainError:
            return None
        if found is None:
            return None
        return (found[:, found.shape[1] // 2] if found.ndim == 4 else found).cpu().numpy()


def look_or_why_not(run: Path) -> tuple[Look | None, str]:
    """The look at a run, or why there is none: its data may be gone, or have changed."""
    try:
        return look_again(run), ""
    except (UserError, OSError) as error:
        return None, str(error)


def look_again(run: Path) -> Look:
    """Ask a run about at most MOST of the images that gave its result.

    Raises UserError or OSError where they cannot be had any more.
    """
    facts = read_facts(run)
    recipe = facts["recipe"]
    images, classes, words = open_part(run, recipe["data"])
    if isinstance(images, IterableDataset):
        raise DataError(f"{recipe['data']} is a stream, which is not gone over again for a report")
    trained = load_trained(str(run), _device(recipe))
    whole = len(images)
    if whole > MOST:
        chosen = np.linspace(0, whole - 1, MOST).round().astype(int).tolist()
        images = images.take(chosen) if isinstance(images, Images) else Subset(images, chosen)
    workers = recipe.get("workers", 0) if len(images) > 1000 else 0
    batches = matched_batches(trained, images, classes, 64, workers)
    with at_rest(trained.network):
        pairs = [(trained.network(x).float().softmax(1).cpu(), labels.cpu()) for x, labels in batches]
    try:
        gates = gate_report(trained.network, batches)
    except ExplainError:
        gates = None
    probabilities, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    names = trained.labels or tuple(map(str, range(trained.network.num_classes)))
    return Look(trained, names, words, whole, batches, probabilities, labels, gates)


def _device(recipe: Any) -> torch.device:
    """The run's own, if it is there."""
    try:
        return pick_device(recipe.get("device", ""))
    except UserError:
        return torch.device("cpu")
