"""What training minimises: cross-entropy or binary cross-entropy, and a teacher's opinion beside it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.task import DistillationTeacher
from torch import Tensor, nn

from zoo.export.fuse import fuse_for_inference
from zoo.inference.class_names import match_classes
from zoo.inference.trained import load_trained
from zoo.training.recipe import Recipe, RecipeError

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (B, K), or (branches, B, K), soft targets (B, K) and the images (B, C, H, W) to a loss."""

LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": F.cross_entropy,
    "bce": F.binary_cross_entropy_with_logits,
}


class Branches(nn.Module):
    """A network in training that gives the logits of each of its branches (branches, B, K)."""

    def __init__(self, network: Any) -> None:
        if not hasattr(network, "forward_branches"):
            name = type(network).__name__
            raise RecipeError(f"{name} has no branches with logits of their own; leave branch_loss out")
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (branches, B, K)."""
        return torch.stack(self.network.forward_branches(x))


def make_objective(
    recipe: Recipe, config: dict[str, Any], classes: Sequence[str], device: torch.device, labels: Sequence[int] = ()
) -> Objective:
    """The loss of `recipe`, in fp32, for these classes in the order of the logits.

    `labels` are the classes of the training images, for `balance = "loss"`.

    Raises RecipeError if the teacher knows another number of classes, DataError if it knows others by name.
    """
    objective = _of_logits(recipe, config, classes, device, labels)
    return _mean_over_branches(objective) if recipe.branch_loss else objective


def _mean_over_branches(objective: Objective) -> Objective:
    """A loss a branch, as in HA-CNN (Li et al. 2018, arXiv 1802.08122, section 3.4: both, with the same labels)."""
    return lambda branches, targets, images: torch.stack(
        [objective(logits, targets, images) for logits in branches]
    ).mean()


def class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """A weight a class (K,), inverse to its number of images, with 1 as the mean over the images.

    A class without an image has 1.
    """
    counts = torch.tensor(labels).bincount(minlength=classes)
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts), 1.0)


def _weighted(loss: Callable[..., Tensor], weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean over a batch of each image's loss times the weight of its class, of the mixture of them if it is mixed.

    It is divided by the number of images and not by the sum of their weights, so that micro-batches and processes add
    up to the loss of the whole update.
    """

    def of_labels(logits: Tensor, targets: Tensor) -> Tensor:
        of_images = loss(logits, targets, reduction="none").reshape(len(targets), -1).mean(1)
        return (of_images * (targets * weights).sum(1)).mean()  # autocast would round a product of matrices

    return of_labels


def standardize(logits: Tensor) -> Tensor:
    """Logits (B, K) with mean 0 and standard deviation 1 in each row, as in Sun et al. 2024, arXiv 2403.01427."""
    deviation, mean = torch.std_mean(logits, 1, keepdim=True)
    return (logits - mean) / deviation.clamp_min(1e-7)


def _of_logits(
    recipe: Recipe, config: dict[str, Any], classes: Sequence[str], device: torch.device, labels: Sequence[int]
) -> Objective:
    of_labels = LOSSES[recipe.loss]
    if recipe.balance == "loss":
        of_labels = _weighted(of_labels, class_weights(labels, len(classes)).to(device))
    if not recipe.teacher:
        return lambda logits, targets, images: of_labels(logits.float(), targets)

    trained = load_trained(recipe.teacher, device)
    count, whose = trained.network.num_classes, f"the teacher {recipe.teacher}"
    if count != len(classes):
        raise RecipeError(
            f"{whose} knows {count} classes and the data has {len(classes)}; fine-tune it on this data first"
        )
    otherwise = "fine-tune it on this data first, or set by_order = true to take its class i for class i of the data"
    order = torch.tensor(
        match_classes(classes, trained.labels, count, whose, otherwise, recipe.by_order), device=device
    )
    answers: Any = fuse_for_inference(trained.network)
    if recipe.compile:
        answers = torch.compile(answers)
    teacher = DistillationTeacher(answers, device=device)
    mean, std = (torch.tensor(config[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std"))
    share, temperature = recipe.distill, recipe.temperature
    scaled: Callable[[Tensor], Tensor] = standardize if recipe.standardize_logits else lambda logits: logits

    def opinion(logits: Tensor) -> Tensor:
        return (scaled(logits) / temperature).log_softmax(1)

    def objective(logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """Hinton et al. 2015, arXiv 1503.02531; the temperature squared keeps the size of the soft part's gradient."""
        with torch.no_grad():
            taught = opinion(teacher(teacher.normalize_input(images, mean, std)).float()[:, order])
        logits = logits.float()
        soft = F.kl_div(opinion(logits), taught, reduction="batchmean", log_target=True)
        return (1 - share) * of_labels(logits, targets) + share * temperature**2 * soft

    return objective
